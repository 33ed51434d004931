"""Boots are recorded, and their profiles used, with the small guest: `record`, `publish --profile auto`."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import termios
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile, parse

pytestmark = [pytest.mark.guest, pytest.mark.fuse, pytest.mark.timeout(800)]
PROMPT = ("--record-until", "circuit login:", "--record-accel", "tcg", "--record-settle", "0.5")


@pytest.fixture(scope="module")
def world(tmp_path_factory, small_disk):
    """A publisher's workstation, and the small guest's disk; every test publishes it as another image."""
    directory = tmp_path_factory.mktemp("world")
    station = Workstation(directory / "user")
    repository = initialise(station, directory / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        yield station, small_disk()


def publish(station, disk, image, *options, **how):
    return station.json("publish", disk, f"{image}@1", "--key", "alice", "--memory", "256", *options, **how)


def until(condition, what, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def leftovers(station):
    """Mounts, instances and driver processes of this user."""
    mounts = [each["mountpoint"] for each in station.json("status")["mounts"]]
    return mounts + station.json("ps")["instances"]


def processes_of(station, program):
    """Processes of this program that work on this user's files."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            raw = command.read_bytes()
            if program in raw.split(b"\0")[0] and str(station.home).encode() in raw:
                found.append(raw)
    return found


@pytest.mark.vm  # three boots, a minute and a half
def test_a_published_disk_is_recorded_first_and_boots_from_its_bundle(world, tmp_path):
    station, disk = world
    published = publish(station, disk, "test:alice/recorded", "--profile", "auto", *PROMPT, timeout=240)
    (profile,) = published["profiles"]
    assert (profile["name"], profile["uploaded"]) == ("boot", True)
    assert 10 < profile["blocks"] < published["data_blocks"]
    assert leftovers(station) == []

    again = publish(station, disk, "test:alice/recorded", "--profile", "auto", *PROMPT)
    assert (again["already_released"], again["profiles"]) == (True, [])

    saved = tmp_path / "boot.json"
    station.json(
        *("boot", "test:alice/recorded", "--name", "one", "--accel", "tcg", "--wait-for", "circuit login:"),
        *("--share-boot", "--save-boot", saved),
    )
    status = station.json("status", "one")
    log = station.home / "data" / "oscirc" / "instances" / "one" / "sharing.log"
    until(log.exists, "the boot is shared")
    assert "sent to" in log.read_text()
    assert log.with_name("shared-boot.json").read_bytes() == saved.read_bytes()
    station.run("stop", "one", timeout=120)
    for mount in station.json("status")["mounts"]:
        station.run("umount", mount["mountpoint"])
    station.run("rm", "one")
    assert status["prefetch"]["blocks"] >= profile["blocks"] * 0.9
    assert status["fetched_blocks"] <= profile["blocks"] * 0.1 + 2
    shared = set(parse(saved.read_bytes()).positions)
    assert profile["blocks"] * 0.9 <= len(shared) <= profile["blocks"] * 1.3
    assert not list((station.home / "run" / "oscirc" / "boots").iterdir())
    the_fleets_profile_becomes_the_bundle(station, saved, profile["blocks"])


def the_fleets_profile_becomes_the_bundle(station, saved, recorded_blocks):
    """Four other networks send the beginning of that boot: that is what most agree on, whatever one network sent."""
    whole = parse(saved.read_bytes())
    beginning = replace(whole, positions=whole.positions[:8]).serialise()
    reference = "test:alice/recorded@1"
    url = json.loads((station.home / "data/oscirc/remotes/test/remote.json").read_text())["url"].partition("#")[0]
    station.refused("profile", "bundle", reference, code=3)
    for number in range(2, 6):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=f"127.0.0.{number}")) as network:
            sent = network.post(f"{url}/api/v1/images/alice/recorded/versions/1/profiles/boot/runs", content=beginning)
        assert sent.json() == {"runs": number}
    looked = station.json("profile", "bundle", reference, "--from", "fleet-boot", "--dry-run")
    assert looked["profiles"] == []
    difference = looked["difference"]
    assert (difference["runs"], difference["target"], difference["blocks"]) == (5, "boot", 8)
    assert difference["new_blocks"] <= 1
    assert difference["lost_blocks"] >= recorded_blocks - 8
    (made,) = station.json("profile", "bundle", reference)["profiles"]
    assert (made["name"], made["uploaded"]) == ("boot", True)
    assert made["blocks"] <= 8
    assert station.json("profile", "bundle", reference, "--dry-run")["difference"]["lost_blocks"] == 0


def test_a_disk_that_does_not_boot_is_not_released(world, tmp_path):
    station, _ = world
    disk = tmp_path / "empty.raw"
    disk.write_bytes(bytes(1 << 20))
    error = station.refused(
        *("publish", disk, "test:alice/unbootable@1", "--key", "alice", "--profile", "auto"),
        *("--record-accel", "tcg", "--record-timeout", "3", "--record-until", "circuit login:"),
        code=5,
        timeout=120,
    )
    assert "run 1" in error
    assert "circuit login:" in error
    place = tmp_path / "mnt"
    place.mkdir()
    station.refused("mount", "test:alice/unbootable@1", place, code=3)
    assert leftovers(station) == []


@pytest.mark.vm
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_midst_of_a_recording_leaves_nothing(world, tmp_path, number):
    station, disk = world
    publish(station, disk, "test:alice/interrupted")
    output = tmp_path / "boot.profile.json"
    process = station.start(
        *("record", "test:alice/interrupted", "-o", output, "--accel", "tcg", "--until", "never shown"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "run 1" in line
        instances = Path(station.home / "data" / "oscirc" / "instances")

        def guest_runs():
            return any(log.stat().st_size for log in instances.glob("record-*/console.log"))

        until(lambda: guest_runs() or process.poll() is not None, "the guest speaks")
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not output.exists()
    assert leftovers(station) == []
    until(lambda: processes_of(station, b"qemu") == [], "the guest's process is gone")


@pytest.mark.vm
def test_what_a_killed_recording_left_is_removed_by_the_next_which_shows_its_progress_on_a_terminal(world, tmp_path):
    station, disk = world
    publish(station, disk, "test:alice/killed")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    station = replace(station, extra={"TMPDIR": str(temporary)})
    recording = ("record", "test:alice/killed", "-o", tmp_path / "boot.json", "--accel", "tcg", "--runs", "1")
    process = station.start(*recording, "--until", "never shown", stderr=subprocess.DEVNULL)
    try:
        until(lambda: processes_of(station, b"qemu"), "the guest runs")
    finally:
        process.kill()
        process.wait()
    (left,) = temporary.glob("oscirc-record-*")
    assert (left / "mnt").is_mount()
    assert len(leftovers(station)) == 2

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with station.start(*recording, "--until", "circuit login:", "--settle", "1", stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's end, when nobody holds it any more
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
    assert process.returncode == 0, shown
    assert f"removed what a recording had left that was killed: {left}".encode() in shown.replace(b"\r\n", b"")
    assert re.search(rb"run 1: [0-9.]+MB \[[0-9]{2}:[0-9]{2}, [^]]*[a-z]{3}", shown), shown
    assert not list(temporary.glob("oscirc-record-*"))
    assert leftovers(station) == []
    until(lambda: processes_of(station, b"qemu") == [], "no guest is left")


@pytest.mark.parametrize("options", [("-o", "missing/dir/x"), ("-o", "x", "--keep-traces", "/dev/null/x")])
def test_where_nothing_can_be_written_nothing_is_booted(world, tmp_path, options):
    station, disk = world
    publish(station, disk, "test:alice/nowhere")
    error = station.refused("record", "test:alice/nowhere", "--accel", "tcg", *options, code=6)
    assert "run 1" not in error
    assert ("cannot write missing/dir/x" if len(options) == 2 else "cannot make the directory /dev/null/x") in error


def test_a_profile_that_would_be_overwritten_is_refused_before_the_first_boot(world, tmp_path):
    station, disk = world
    publish(station, disk, "test:alice/kept")
    output = tmp_path / "boot.profile.json"
    output.write_text("mine")
    error = station.refused("record", "test:alice/kept", "-o", output, code=6)
    assert "--force" in error
    assert output.read_text() == "mine"


def test_profiles_are_published_added_under_other_names_listed_and_removed(world, tmp_path):
    station, disk = world
    with disk.open("rb") as opened:
        hole = next(
            position for position, block in enumerate(iter(lambda: opened.read(1 << 18), b"")) if not any(block)
        )
    for positions, why in (((1 << 30,), "beyond the end"), ((hole,), "no block with data")):
        bad = tmp_path / "bad.profile.json"
        bad.write_bytes(Profile(digest_of(b"another disk"), "boot", 2, positions).serialise())
        error = station.refused(
            *("publish", disk, "test:alice/named@1", "--key", "alice", "--memory", "256", "--profile", bad),
            code=2 if "beyond" in why else 7,
        )
        assert why in error
        station.refused("show", "test:alice/named", code=3)  # no channel points at it
    file = tmp_path / "session.profile.json"
    file.write_bytes(Profile(digest_of(b"an earlier version"), "boot", 2, (0, 5, 3)).serialise())
    (published,) = publish(station, disk, "test:alice/named", "--profile", f"session={file}")["profiles"]
    assert (published["name"], published["uploaded"]) == ("session", True)
    assert station.json("show", "test:alice/named")["version"] == "1"
    reference = "test:alice/named@1"
    (added,) = station.json("profile", "add", reference, f"build={file}")["profiles"]
    assert added["name"] == "build"
    listed = station.json("profile", "list", reference)["accelerators"]
    assert sorted((each["name"], each["kind"]) for each in listed) == [
        ("build", "bundle"),
        ("build", "profile"),
        ("session", "bundle"),
        ("session", "profile"),
    ]
    for name in ("build", "session"):
        station.run("profile", "remove", reference, name)
    assert station.json("profile", "list", reference)["accelerators"] == []


@pytest.mark.vm
def test_a_released_version_is_recorded_under_a_name(world, tmp_path):
    station, disk = world
    publish(station, disk, "test:alice/quick")
    output = tmp_path / "quick.profile.json"
    recorded = station.json(
        *("record", "test:alice/quick", "-o", output, "--name", "quick", "--runs", "1", "--accel", "tcg"),
        *("--until", "circuit login:", "--settle", "0.5", "--keep-traces", tmp_path / "traces"),
        timeout=200,
    )
    assert json.loads(output.read_text())["name"] == "quick"
    assert recorded["runs"] == 1
    assert len(list((tmp_path / "traces").iterdir())) == 1
