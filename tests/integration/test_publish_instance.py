"""`oscirc publish instance:NAME` against a real server: what it reads, sends and refuses. No guest runs here."""

import asyncio
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import changed_images, ext4_images
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_publisher.cleaning import clean
from oscirc_publisher.private_data import look
from oscirc_vmlaunch import overlays
from oscirc_vmlaunch.instances import Instances
from oscirc_vmlaunch.records import InstanceRecord

MIB, BLOCK = 1 << 20, 256 << 10


@pytest.fixture(scope="module")
def station(tmp_path_factory):
    """A publisher who is also a user, with alice/debian@1 of 300 MiB released."""
    home = tmp_path_factory.mktemp("station")
    operator = Workstation(home / "operator")
    repository = initialise(operator, home / "repository")
    station = Workstation(home / "alice")
    with serving(operator, repository):
        add_publisher(station, repository, "alice")
        base = home / "base.raw"
        with base.open("wb") as file:
            for at in range(0, 300, 5):
                file.seek(at * MIB)
                file.write(b"%d" % at * 4096)
            file.truncate(300 * MIB)
        station.base, station.tree = base, repository.tree
        station.first = station.json(
            *("publish", base, "test:alice/debian@1", "--key", "alice"),
            *("--memory", "256", "--os", "debian", "--os-version", "12", "--login", "root, no password"),
        )
        yield station


@pytest.fixture
def instance(station, request):
    """A stopped instance of that version, and a way to write to its disk as a guest would."""
    made = make(station, f"one-{abs(hash(request.node.name)) % 10**8}", station.first["manifest"], station.base)
    yield made
    Instances(made.directory.parent).remove(made.name)


def make(station, name, manifest, disk, image="alice/debian"):
    made = Instances(station.home / "data" / "oscirc" / "instances").create(
        InstanceRecord(
            name=name,
            remote="test",
            reference=image,
            manifest_digest=manifest,
            version="1",
            firmware="bios",
            architecture="x86_64",
            memory_mib=256,
            cpus=1,
            accelerator="tcg",
            mount_point="/nowhere",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )
    asyncio.run(overlays.create(made.overlay, disk, manifest_digest=manifest))
    return made


def write(instance, *commands):
    arguments = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        ["qemu-io", "-d", "unmap", "-f", "qcow2", *arguments, instance.overlay], check=True, capture_output=True
    )


def publish(station, instance, version, *options):
    return station.json(
        *("publish", f"instance:{instance.name}", f"test:alice/debian@{version}", "--key", "alice"), *options
    )


def flat(instance, tmp_path):
    """The disk as QEMU reads it."""
    out = tmp_path / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", instance.overlay, out], check=True)
    return out


def test_work_follows_what_was_written_not_what_the_disk_holds(station, instance, tmp_path):
    costs = []
    for version, mebibytes in (("small", 4), ("double", 8)):
        write(instance, *(f"write -P {at + mebibytes} {100 + at * 10}M 1M" for at in range(mebibytes)))
        costs.append(publish(station, instance, version, "--keep-secrets", "--no-channel"))
    for cost, mebibytes in zip(costs, (4, 8), strict=True):
        assert cost["changed_bytes"] == cost["overlay_bytes_read"] == mebibytes * MIB
        assert cost["base_blocks_loaded"] <= 3  # to see whether there is a file system
        assert cost["base_bytes_read"] < 64 << 10
        assert cost["base_nodes_loaded"] <= 8
        assert cost["new_blocks"] <= mebibytes
    whole = station.json("publish", flat(instance, tmp_path), "test:alice/whole@1", "--key", "alice", "--no-channel")
    shown = station.json("show", "test:alice/debian@double")
    assert whole["new_blocks"] == 0  # the same blocks, whichever way they are read
    assert shown["data_blocks"] == whole["data_blocks"]


def test_a_dry_run_says_what_would_be_and_publishes_nothing(station, instance):
    write(instance, "write -P 5 100M 1M", "write -z 30M 256k")
    facts = station.json("publish", f"instance:{instance.name}", "test:alice/debian@never", "--dry-run")  # needs no key
    assert (facts["changed_blocks"], facts["changed_bytes"], facts["zeroed_bytes"]) == (5, MIB, BLOCK)
    assert facts["base"] == "alice/debian@1"
    assert [find["kind"] for find in facts["private"]] == ["not looked at"]  # this disk has no file system
    station.refused("show", "test:alice/debian@never", code=3)
    said = station.refused("publish", f"instance:{instance.name}", "test:alice/debian@never", code=2)
    assert "--key" in said


def test_what_cannot_be_looked_at_is_refused_until_it_is_allowed(station, instance):
    write(instance, "write -P 6 100M 4k")
    arguments = ("publish", f"instance:{instance.name}", "test:alice/debian@unseen", "--key", "alice")
    said = station.refused(*arguments, code=2)
    assert "should not be public" in said
    assert "--keep-secrets" in said
    assert "cannot be cleaned" in station.refused(*arguments, "--clean", code=2)
    station.refused("show", "test:alice/debian@unseen", code=3)
    station.run(*arguments, "--keep-secrets", "--no-channel")


def test_facts_and_changelog_are_the_bases_unless_given(station, instance):
    write(instance, "write -P 7 100M 4k")
    publish(station, instance, "facts", "--keep-secrets", "--no-channel", "--memory", "300")
    shown = station.json("show", "test:alice/debian@facts")
    assert (shown["family"], shown["os_version"], shown["minimum_memory_mib"]) == ("debian", "12", 300)
    assert shown["default_login"] == "root, no password"
    indexes = [path.read_text() for path in (station.tree / "targets" / "alice").glob("*.debian.json")]
    assert any('"alice/debian@1 with changes"' in index for index in indexes)
    running = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert str(instance.overlay) not in running  # nothing is left running, or mounted
    assert str(station.home) not in Path("/proc/mounts").read_text()


def test_an_instance_that_is_held_is_refused(station, instance):
    arguments = ("publish", f"instance:{instance.name}", "test:alice/debian@held", "--key", "alice", "--keep-secrets")
    with instance.lock():
        assert f"oscirc stop {instance.name}" in station.refused(*arguments, code=6)


def test_options_for_instances_are_refused_for_disks(station):
    arguments = ("publish", station.base, "test:alice/debian@2", "--key", "alice")
    assert "instance:NAME" in station.refused(*arguments, "--clean", code=2)


def test_what_is_private_is_left_out_of_the_version_and_stays_in_the_instance(station, tmp_path):
    """What `private_data` and `cleaning` do, through an overlay: the same disk as when it stood in a file."""
    base = ext4_images.make(tmp_path / "base.raw", {"etc/hostname": b"here\n", "data": b"x" * 3 * MIB}, size=24 * MIB)
    changed = tmp_path / "changed.raw"
    shutil.copyfile(base, changed)
    secrets = {"etc/machine-id": b"0123\n", "home/bob/.netrc": b"SECRET\n", "srv/new": b"public" * 9000}
    changed_images.put(changed, secrets)
    diff = changed_images.DiffDisk(base, changed)
    first = station.json("publish", base, "test:alice/files@1", "--key", "alice", "--no-channel")
    instance = make(station, "files", first["manifest"], base, "alice/files")
    for number, extent in enumerate(diff.changed()):
        piece = tmp_path / str(number)
        piece.write_bytes(diff.read(extent.start, extent.size))
        write(instance, f"write -s {piece} {extent.start} {extent.size}")
    before = instance.overlay.read_bytes()
    arguments = ("publish", "instance:files", "test:alice/files@2", "--key", "alice", "--no-channel")
    assert "/home/bob/.netrc" in station.refused(*arguments, code=2)
    facts = station.json(*arguments, "--clean")
    assert {find["where"] for find in facts["private"]} == {"/etc/machine-id", "/home/bob/.netrc"}

    expected = tmp_path / "expected.raw"
    expected.write_bytes(clean(diff, look(diff)).read(0, diff.size))
    whole = station.json("publish", expected, "test:alice/files@3", "--key", "alice", "--no-channel")
    assert whole["manifest"] == facts["manifest"]
    assert b"SECRET" not in expected.read_bytes()
    assert instance.overlay.read_bytes() == before
