"""Boots are recorded, and their profiles used, with the small guest: `record`, `publish --profile auto`."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

pytestmark = [pytest.mark.guest, pytest.mark.fuse]
PROMPT = ("--record-until", "circuit login:", "--record-accel", "tcg", "--record-settle", "0.5")


@pytest.fixture
def world(tmp_path, small_disk):
    station = Workstation(tmp_path / "user")
    repository = initialise(station, tmp_path / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        yield station, small_disk()


def publish(station, disk, *options, **how):
    return station.json("publish", disk, "test:alice/circuit@1", "--key", "alice", "--memory", "256", *options, **how)


def leftovers(station):
    """Mounts, instances and driver processes of this user."""
    mounts = [each["mountpoint"] for each in station.json("status")["mounts"]]
    return mounts + station.json("ps")["instances"]


def test_a_published_disk_is_recorded_first_and_boots_from_its_bundle(world, tmp_path):
    station, disk = world
    published = publish(station, disk, "--profile", "auto", *PROMPT, timeout=240)
    (profile,) = published["profiles"]
    assert (profile["name"], profile["uploaded"]) == ("boot", True)
    assert 10 < profile["blocks"] < published["data_blocks"]
    assert leftovers(station) == []

    again = publish(station, disk, "--profile", "auto", *PROMPT)
    assert (again["already_released"], again["profiles"]) == (True, [])

    station.json("boot", "test:alice/circuit", "--name", "one", "--accel", "tcg", "--wait-for", "circuit login:")
    status = station.json("status", "one")
    station.run("stop", "one", timeout=120)
    for mount in station.json("status")["mounts"]:
        station.run("umount", mount["mountpoint"])
    assert status["prefetch"]["blocks"] >= profile["blocks"] * 0.9
    assert status["fetched_blocks"] <= profile["blocks"] * 0.1 + 2


def test_a_disk_that_does_not_boot_is_not_released(world, tmp_path):
    station, _ = world
    disk = tmp_path / "empty.raw"
    disk.write_bytes(bytes(1 << 20))
    error = station.refused(
        *("publish", disk, "test:alice/circuit@1", "--key", "alice", "--profile", "auto"),
        *("--record-accel", "tcg", "--record-timeout", "8", "--record-until", "circuit login:"),
        code=5,
        timeout=120,
    )
    assert "run 1" in error
    assert "circuit login:" in error
    place = tmp_path / "mnt"
    place.mkdir()
    station.refused("mount", "test:alice/circuit@1", place, code=3)
    assert leftovers(station) == []


def test_ctrl_c_in_the_midst_of_a_recording_leaves_nothing(world, tmp_path):
    station, disk = world
    publish(station, disk)
    output = tmp_path / "boot.profile.json"
    process = station.start(
        *("record", "test:alice/circuit", "-o", output, "--accel", "tcg", "--until", "never shown"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "run 1" in line
        instances = Path(station.home / "data" / "oscirc" / "instances")
        while not list(instances.glob("record-*")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not output.exists()
    assert leftovers(station) == []


def test_a_profile_that_would_be_overwritten_is_refused_before_the_first_boot(world, tmp_path):
    station, disk = world
    publish(station, disk)
    output = tmp_path / "boot.profile.json"
    output.write_text("mine")
    error = station.refused("record", "test:alice/circuit", "-o", output, code=6)
    assert "--force" in error
    assert output.read_text() == "mine"


def test_a_recorded_profile_is_added_listed_and_removed(world, tmp_path):
    station, disk = world
    publish(station, disk)
    output = tmp_path / "quick.profile.json"
    recorded = station.json(
        *("record", "test:alice/circuit", "-o", output, "--name", "quick", "--runs", "1", "--accel", "tcg"),
        *("--until", "circuit login:", "--settle", "0.5"),
        timeout=200,
    )
    assert json.loads(output.read_text())["name"] == "quick"
    assert recorded["runs"] == 1
    reference = "test:alice/circuit@1"
    (added,) = station.json("profile", "add", reference, output)["profiles"]
    assert (added["name"], added["blocks"] <= recorded["blocks"]) == ("quick", True)
    listed = station.json("profile", "list", reference)["accelerators"]
    assert {(each["kind"], each["name"]) for each in listed} == {("bundle", "quick"), ("profile", "quick")}
    station.run("profile", "remove", reference, "quick")
    assert station.json("profile", "list", reference)["accelerators"] == []
