"""`oscirc diff` against a real server: what it says is what a pull then moves, and only nodes are fetched to say it."""

import os
import random
import re
import shutil

import httpx
import pytest
from support import ext4_images
from support.commands import Workstation, add_publisher, initialise, serving

BLOCK = 65536
PUBLISH = ("--key", "alice", "--block-size", "65536", "--deltas", "0")


def pieces(*names):
    return b"".join(bytes(BLOCK) if name is None else random.Random(name).randbytes(BLOCK) for name in names)


DISKS = {
    "1": pieces("a", "b", None, "d", "e"),
    "2": pieces("a", "B", "c", None, "e", "f"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    base = tmp_path_factory.mktemp("diff")
    publisher = Workstation(base / "publisher")
    made = initialise(publisher, base / "repository")
    with serving(publisher, made):
        add_publisher(publisher, made, "alice")
        for label, raw in DISKS.items():
            disk = base / f"{label}.raw"
            disk.write_bytes(raw)
            publisher.run(
                "publish",
                disk,
                f"test:alice/disk@{label}",
                *PUBLISH,
                "--changelog",
                f"first line of {label}\nand a second",
            )
        yield made


@pytest.fixture
def station(repository, tmp_path):
    workstation = Workstation(tmp_path / "reader")
    workstation.run("remote", "add", "test", repository.url)
    return workstation


def test_what_it_says_will_be_fetched_is_what_a_pull_then_fetches(station):
    station.run("pull", "alice/disk@1")
    said = station.json("diff", "alice/disk@1", "@2")
    assert said["blocks"] == {"data": 5, "unchanged": 2, "changed": 1, "new": 2, "removed": 1}
    assert (said["from_here"]["blocks"], said["from_old"]["blocks"]) == (3, 3)
    assert said["from_here"]["estimated_blocks"] == 0
    assert said["fetched_nodes"] == 1  # the new table's; the old one's is here
    pulled = station.json("pull", "alice/disk@2")
    assert pulled["fetched_blocks"] == 3
    bodies = said["from_here"]["bytes_with_packs"]
    assert bodies <= pulled["fetched_bytes"] < bodies + 3 * 2000  # and heads
    after = station.json("diff", "alice/disk@1", "@2")
    assert (after["from_here"]["blocks"], after["from_here"]["bytes"], after["fetched_nodes"]) == (0, 0, 0)
    assert after["from_old"] == said["from_old"]


def test_lengths_are_those_of_the_files_that_the_server_has(station, repository):
    said = station.json("diff", "alice/disk@1", "@2")
    lengths = sorted(path.stat().st_size for path in (repository.tree / "blocks").rglob("*.zst"))
    assert said["from_here"]["blocks"] == 5
    assert BLOCK * 5 < said["from_here"]["bytes"] < sum(lengths)


def test_one_reference_is_compared_with_the_version_before_that_is_here(station):
    assert station.json("diff", "alice/disk@2")["old"]["version"] == "1"
    error = station.refused("diff", "alice/disk@1", code=2)
    assert "no version before" in error


def test_a_version_and_itself_differ_in_nothing(station):
    said = station.json("diff", "alice/disk@2", "alice/disk")
    assert said["from_old"] | {"bytes_with_packs": None} == {
        "blocks": 0, "bytes": 0, "node_bytes": 0, "bytes_with_packs": None, "estimated_blocks": 0,
    }  # fmt: skip
    assert said["old"]["manifest"] == said["new"]["manifest"]


def test_the_map_says_of_each_block_what_became_of_it(station):
    runs = station.json("diff", "alice/disk@1", "@2", "--map")["runs"]
    assert runs == [["unchanged", 1], ["changed", 1], ["new", 1], ["removed", 1], ["unchanged", 1], ["new", 1]]
    drawn = station.run("diff", "alice/disk@1", "@2", "--map")
    assert "=CNr=N" in drawn
    assert "says       first line of 2\n             and a second\n" in drawn


def test_to_compare_is_not_to_use(station):
    station.run("diff", "alice/disk@1", "alice/disk")
    assert not list((station.home / "data" / "oscirc" / "remotes" / "test").glob("receipts/*/*/*.json"))


def test_without_the_server_what_is_known_is_compared_and_that_is_said(repository, tmp_path):
    station = Workstation(tmp_path / "offline")
    station.run("remote", "add", "test", repository.url)
    station.run("diff", "alice/disk@1", "@2")
    cut = Workstation(tmp_path / "offline", extra={"http_proxy": "http://127.0.0.1:9", "no_proxy": ""})
    done = cut.attempt("diff", "alice/disk@1", "@2", "--json")
    assert done.returncode == 0, done.stderr
    assert "as far as this machine knows" in done.stderr
    assert '"estimated_blocks": 0' in done.stdout  # the lengths are kept


STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: all\nVersion: {}\nInstalled-Size: {}\n\n"
SYSTEM = {
    "etc/os-release": b'PRETTY_NAME="Example 1"\n',
    "usr/lib/large": random.Random(8).randbytes(900_000),
    "usr/lib/evil\x1b[2J": b"x" * 5000,
    "var/lib/dpkg/status": (STATUS.format("bash", "1", 90) + STATUS.format("gone", "3", 40)).encode(),
}


def long_ago(folder):
    for path in folder.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.fixture(scope="module")
def systems(repository, tmp_path_factory):
    """Two versions of a disk with a file system, of which debugfs made the second."""
    base = tmp_path_factory.mktemp("systems")
    one, two = base / "one.raw", base / "two.raw"
    ext4_images.make(one, SYSTEM, size=24 << 20, also=long_ago)
    shutil.copy(one, two)
    status, release, fresh = base / "status", base / "release", base / "fresh"
    status.write_text(STATUS.format("bash", "2", 20) + STATUS.format("new", "1:1", 30))
    release.write_text('PRETTY_NAME="Example 2"\n')
    fresh.write_bytes(random.Random(9).randbytes(2_000_000))
    for command in (
        "rm /var/lib/dpkg/status",
        f"write {status} /var/lib/dpkg/status",
        "rm /etc/os-release",
        f"write {release} /etc/os-release",
        "rm /usr/lib/evil\x1b[2J",
        f"write {fresh} /usr/lib/fresh",
    ):
        ext4_images.debugfs_write(two, command)
    publisher = Workstation(repository.directory.parent / "publisher")
    for label, disk in (("1", one), ("2", two)):
        publisher.run("publish", disk, f"test:alice/system@{label}", *PUBLISH)
    return repository


def test_packages_and_files_that_changed_are_named(systems, station):
    said = station.json("diff", "alice/system@1", "@2", "--packages", "--files")
    assert (said["packages"]["old_system"], said["packages"]["new_system"]) == ("Example 1", "Example 2")
    assert said["packages"]["changes"] == [
        {"name": "gone", "old": "3", "new": None, "size": 40 << 10},
        {"name": "new", "old": None, "new": "1:1", "size": 30 << 10},
        {"name": "bash", "old": "1", "new": "2", "size": 20 << 10},
    ]
    (partition,) = said["files"]
    assert [(change["kind"], change["path"]) for change in partition["changes"]] == [
        ("added", "/usr/lib/fresh"),
        ("removed", "/usr/lib/evil\x1b[2J"),
        ("changed", "/var/lib/dpkg/status"),
        ("changed", "/etc/os-release"),
    ]
    assert said["notes"] == []


def test_publishing_sent_the_packages_that_the_page_of_the_update_names(systems):
    page = systems.url.partition("#")[0].rstrip("/") + "/images/alice/system/updates?from=1&to=2"
    answer = httpx.get(page, headers={"Accept": "application/json"}, timeout=60, trust_env=False)
    assert answer.json()["packages"] == [
        {"name": "bash", "old": "1", "new": "2"},
        {"name": "gone", "old": "3", "new": None},
        {"name": "new", "old": None, "new": "1:1"},
    ]


def test_what_is_cheap_is_shown_without_being_asked_for_and_nothing_else_is_fetched(systems, station):
    drawn = station.run("diff", "alice/system@1", "@2")
    assert "packages: 3 differ (Example 1 -> Example 2)\n  - gone 3 (40.0 KiB)\n  + new 1:1 (30.0 KiB)\n" in drawn
    assert "\n  ~ bash 1 -> 2 (20.0 KiB)\n" in drawn
    assert re.search(r"\+ +1.9 MiB  /usr/lib/fresh", drawn)
    assert "\x1b" not in drawn
    assert "/usr/lib/evil?[2J" in drawn
    stored = [path for path in (station.home / "cache").rglob("*") if path.is_file() and path.stat().st_size == BLOCK]
    assert len(stored) < 30  # of some 60: not the contents of the files


def test_a_disk_without_a_file_system_says_so(station):
    said = station.json("diff", "alice/disk@1", "@2", "--files", "--packages")
    assert (said["files"], said["packages"]["changes"]) == ([], None)
    assert "no ext4" in said["notes"][0]
    assert "packages: none found" in station.run("diff", "alice/disk@1", "@2")
