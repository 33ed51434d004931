"""`make test-vm`: the stock Debian disk, published, mounted, compared whole, booted to login, upgraded."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_blockstore import png

ROOT = Path(__file__).resolve().parents[2]
DISKS = Path(os.environ.get("OSCIRC_TEST_DISKS", "/var/tmp/oscirc-test-disks"))
PUBLISH = ("--key", "alice", "--os", "debian", "--os-version", "12", "--firmware", "uefi")
BOOT = ("--accel", "tcg", "--cpus", "2", "--memory", "1024", "--wait-for", "circuit login:", "--timeout", "600")

pytestmark = [pytest.mark.vm, pytest.mark.fuse]


@pytest.fixture(scope="module")
def disks():
    """Version 1, and version 2 after `apt upgrade`; built once (some minutes, needs root) and kept."""
    if not (DISKS / "v2.raw").exists():
        if os.geteuid() != 0:
            pytest.skip("building the stock Debian disk needs root: sudo python guests/debian.py")
        subprocess.run([sys.executable, str(ROOT / "guests" / "debian.py"), str(DISKS), "--upgraded"], check=True)
    return DISKS / "v1.raw", DISKS / "v2.raw"


@pytest.fixture(scope="module")
def published(disks, tmp_path_factory):
    base = tmp_path_factory.mktemp("debian")
    publisher = Workstation(base / "publisher")
    repository = initialise(publisher, base / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        first = publisher.json("publish", disks[0], "test:alice/debian@1", *PUBLISH, timeout=600)
        yield publisher, repository, first


@pytest.fixture
def reader(published, tmp_path):
    _, repository, _ = published
    station = Workstation(tmp_path / "reader")
    station.run("remote", "add", "test", repository.url)
    yield station
    status = station.json("status")
    for instance in status["instances"]:
        station.attempt("rm", "--force", instance["name"])
    for mount in station.json("status")["mounts"]:
        station.attempt("umount", "--lazy", mount["mountpoint"])


def sha256(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_whole_disk_reads_as_it_was(published, reader, disks, tmp_path):
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    reader.run("mount", "test:alice/debian@1", mountpoint)
    assert sha256(mountpoint / "disk.raw") == sha256(disks[0])
    reader.run("umount", mountpoint)


def distinct_blocks(disk) -> set[bytes]:
    """SHA-256 of every block of 256 KiB that is not all zeros."""
    size = 256 * 1024
    with disk.open("rb") as file:
        contents = iter(lambda: file.read(size), b"")
        return {hashlib.sha256(raw).digest() for raw in contents if raw.count(0) != len(raw)}


def boot(station, *options):
    """Bytes of blocks fetched until the login prompt."""
    station.run("boot", "test:alice/debian@1", "--name", "debian", *BOOT, *options, timeout=700)
    facts = station.json("status", "debian")
    assert facts["failed_reads"] == 0
    station.run("stop", "debian", "--timeout", "90", timeout=180)
    return facts


def test_it_boots_to_login_and_fetches_little_more_than_it_touches(published, reader, tmp_path):
    _, repository, first = published
    fetched = boot(reader)["fetched_bytes"]

    # what the guest itself asks for: a mount without the page cache and its read-ahead, on another workstation
    witness = Workstation(tmp_path / "witness")
    witness.run("remote", "add", "test", repository.url)
    mountpoint = tmp_path / "direct"
    mountpoint.mkdir()
    witness.run("mount", "test:alice/debian@1", mountpoint, "--direct-io")
    touched = boot(witness)["fetched_bytes"]
    witness.run("umount", mountpoint)
    print(f"\nimage {first['stored_bytes']:,} bytes, touched {touched:,}, fetched {fetched:,}: {fetched / touched:.3f}")
    assert fetched <= 1.3 * touched


def test_a_picture_of_its_prompt_is_taken_under_uefi(published, tmp_path):
    publisher, _, _ = published
    file = tmp_path / "screen.png"
    taken = publisher.json(
        *("record", "test:alice/debian@1", "-o", tmp_path / "boot.json", "--runs", "1", "--accel", "tcg"),
        *("--until", "circuit login:", "--timeout", "600", "--screenshot", "--screenshot-file", file),
        timeout=700,
    )
    size = png.check(file.read_bytes())
    assert taken["screenshot"]["png_bytes"] == file.stat().st_size
    assert size.width >= 640
    (listed,) = publisher.json("screenshot", "list", "test:alice/debian@1")["screenshots"]
    assert (listed["width"], listed["height"]) == (size.width, size.height)
    print(f"\n{size.width} x {size.height} pixels in {file.stat().st_size:,} bytes: {file}")


def test_an_upgrade_costs_what_changed(published, reader, disks):
    publisher, _, _ = published
    reader.run("pull", "test:alice/debian@1", timeout=600)
    second = publisher.json("publish", disks[1], "test:alice/debian@2", *PUBLISH, timeout=600)
    old, new = (distinct_blocks(disk) for disk in disks)
    assert second["new_blocks"] == len(new - old)
    pulled = reader.json("pull", "test:alice/debian@2", timeout=600)
    assert pulled["fetched_blocks"] == second["new_blocks"]
    assert pulled["fetched_nodes"] == second["new_nodes"]
    print(
        f"\nversion 2: {second['new_blocks']} of {second['data_blocks']} blocks and {second['new_nodes']} nodes, "
        f"{second['uploaded_bytes']:,} bytes uploaded, {pulled['fetched_bytes']:,} fetched"
    )
