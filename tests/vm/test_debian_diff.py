"""`make test-vm`: what `oscirc diff` says of the stock Debian disk and of the same after an upgrade, and what is true."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

ROOT = Path(__file__).resolve().parents[2]
DISKS = Path(os.environ.get("OSCIRC_TEST_DISKS", "/var/tmp/oscirc-test-disks"))
PUBLISH = ("--key", "alice", "--os", "debian", "--os-version", "12", "--firmware", "uefi")
BLOCK = 256 * 1024

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def disks():
    """Version 1, the same after `apt-get upgrade` without another kernel, and what that changed."""
    two, listed = DISKS / "v2-same-kernel.raw", DISKS / "packages-same-kernel.txt"
    if not (two.exists() and listed.exists()):
        if os.geteuid() != 0:
            pytest.skip("building the stock Debian disk needs root: sudo python guests/debian.py --same-kernel")
        command = [sys.executable, str(ROOT / "guests" / "debian.py"), str(DISKS), "--same-kernel"]
        subprocess.run(command, check=True)
    return DISKS / "v1.raw", two, [line.split() for line in listed.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def published(disks, tmp_path_factory):
    base = tmp_path_factory.mktemp("debian")
    publisher = Workstation(base / "publisher")
    repository = initialise(publisher, base / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        for label, disk in enumerate(disks[:2], 1):
            publisher.run("publish", disk, f"test:alice/debian@{label}", *PUBLISH, timeout=900)
        yield repository


@pytest.fixture
def station(published, tmp_path):
    workstation = Workstation(tmp_path / "reader")
    workstation.run("remote", "add", "test", published.url)
    return workstation


def blocks_of(disk):
    """SHA-256 by position, None for zeros."""
    with disk.open("rb") as file:
        contents = iter(lambda: file.read(BLOCK), b"")
        return [hashlib.sha256(raw).digest() if raw.count(0) != len(raw) else None for raw in contents]


def test_packages_are_those_that_the_upgrade_changed(station, disks):
    said = station.json("diff", "alice/debian@1", "@2", "--packages", timeout=300)
    changes = [[each["name"], each["old"] or "-", each["new"] or "-"] for each in said["packages"]["changes"]]
    assert sorted(changes) == sorted(disks[2])
    sizes = [each["size"] for each in said["packages"]["changes"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 0
    assert said["packages"]["new_system"].startswith("Debian GNU/Linux 12")


def test_blocks_and_bytes_are_those_of_the_disks_and_of_a_pull(station, disks):
    one, two = map(blocks_of, disks[:2])
    station.run("pull", "alice/debian@1", timeout=600)
    said = station.json("diff", "alice/debian@1", "@2", timeout=300)
    pairs = [(old, new) for old, new in zip(one, two, strict=True) if old != new]
    assert said["blocks"] == {
        "data": sum(new is not None for new in two),
        "unchanged": sum(old == new is not None for old, new in zip(one, two, strict=True)),
        "changed": sum(None not in pair for pair in pairs),
        "new": sum(old is None for old, _ in pairs),
        "removed": sum(new is None for _, new in pairs),
    }
    assert said["from_old"]["blocks"] == said["from_here"]["blocks"] == len(set(two) - set(one) - {None})
    assert said["from_here"]["estimated_blocks"] == 0
    assert said["from_here"]["bytes_with_packs"] < 0.3 * said["from_here"]["bytes"]
    moved = station.json("pull", "alice/debian@2", timeout=600)["fetched_bytes"]
    print(f"\nsaid {said['from_here']['bytes_with_packs']:,} bytes of bodies, a pull moved {moved:,}")
    assert said["from_here"]["bytes_with_packs"] <= moved <= 1.1 * said["from_here"]["bytes_with_packs"] + 100_000


def test_files_are_named_for_few_bytes(station, published, disks):
    said = station.json("diff", "alice/debian@1", "@2", "--files", timeout=300)
    (partition,) = said["files"]
    changed = {change["path"] for change in partition["changes"] if change["kind"] == "changed"}
    assert {"/usr/bin/perl", "/usr/bin/python3.11", "/var/lib/dpkg/status"} <= changed
    assert partition["files"] > 20_000
    sizes = [change["new_size"] or change["old_size"] for change in partition["changes"]]
    assert sizes == sorted(sizes, reverse=True)
    kept = sum(path.stat().st_size for path in (station.home / "cache").rglob("*") if path.is_file())
    print(f"\n{len(partition['changes'])} of {partition['files']} paths differ; {kept:,} bytes were kept, raw")
    assert kept < 0.1 * sum(disk.stat().st_blocks * 512 for disk in disks[:2])
