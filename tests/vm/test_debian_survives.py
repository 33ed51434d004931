"""`make test-vm`: stock Debian 12 and 13, booted from mirrors that fail in mid-boot; each reaches login and saw no error.

The same without a guest, with and without a bundle, in figures: `bench/survival.py`.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support.commands import Workstation, add_publisher, initialise, serving
from support.fault_server import about_every_tenth, flip_bit
from support.links import far_mirror

from .cut_guest import Guest

ROOT = Path(__file__).resolve().parents[2]
DISKS = Path(os.environ.get("OSCIRC_TEST_DISKS", "/var/tmp/oscirc-test-disks"))
DIRECTORIES = {"bookworm": DISKS, "trixie": DISKS / "trixie"}  # as the benchmarks have them
VERSIONS = {"bookworm": "12", "trixie": "13"}
MACHINE = ("--cpus", "2", "--memory", "1024", "--timeout", "900")
LOGIN_S = 900
MID_BOOT_BYTES = 25_000_000

pytestmark = [pytest.mark.vm, pytest.mark.fuse]
on = pytest.mark.parametrize


class Published(NamedTuple):
    """A repository's plain files, and its pin."""

    tree: Path
    pin: str


@pytest.fixture(scope="module")
def published(request, tmp_path_factory):
    """The release of that name as `alice/debian@1`. Its disk is built once (some minutes, needs root) and kept."""
    suite = request.param
    disk = DIRECTORIES[suite] / "v1.raw"
    if not disk.exists():
        if os.geteuid() != 0:
            pytest.skip(f"building the stock Debian disk needs root: sudo python guests/debian.py --suite {suite}")
        build = [sys.executable, str(ROOT / "guests" / "debian.py"), str(disk.parent), "--suite", suite]
        subprocess.run(build, check=True)
    base = tmp_path_factory.mktemp(suite)
    publisher = Workstation(base / "publisher")
    repository = initialise(publisher, base / "repository")
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        facts = ("--key", "alice", "--os", "debian", "--os-version", VERSIONS[suite], "--firmware", "uefi")
        publisher.run("publish", disk, "test:alice/debian@1", *facts, timeout=600)
    return Published(repository.tree, repository.url.partition("#")[2])


@pytest.fixture
def boots(published, tmp_path):
    """Boots from a mirror, and another."""

    def boot(mirror, other=None):
        station = Workstation(tmp_path / "user")
        return Guest(station, mirror, published.pin, "alice/debian@1", "circuit login:", *MACHINE, other=other)

    return boot


def standing(facts, mirror):
    (found,) = (each for each in facts["mirrors"] if each["name"] == mirror.url)
    return found


@on("published", ["bookworm", "trixie"], indirect=True)
def test_the_network_is_cut_for_a_minute_in_mid_boot(published, boots):
    """With the defaults: a read waits ten seconds, then the guest pauses; a minute later it goes on."""
    with far_mirror(published.tree) as mirror, boots(mirror) as guest:
        said = guest.cut_for(60, moved_bytes=MID_BOOT_BYTES)
        assert (said["state"], said["paused_by"]) == ("paused", "network")
        facts = guest.reaches_login(LOGIN_S)
        assert facts["worst_stall_ms"] >= 10_000


@on("published", ["bookworm"], indirect=True)
def test_the_mirror_in_use_is_killed_in_mid_boot(published, boots):
    with (
        far_mirror(published.tree) as mirror,
        far_mirror(published.tree) as second,
        boots(mirror, second) as guest,
    ):
        guest.wait(lambda: mirror.link.tell().bytes_down > MID_BOOT_BYTES, "it boots from the first", 120)
        mirror.server.close()
        mirror.link.tell("kill")
        brought = second.link.tell().bytes_down
        facts = guest.reaches_login(LOGIN_S, after_a_pause=False)
        assert facts["failed_reads"] == 0
        assert standing(facts, mirror)["failures"] > 0
        assert second.link.tell().bytes_down > brought + MID_BOOT_BYTES
        print(f"\nworst read {facts['worst_stall_ms']} ms")


@on("published", ["trixie"], indirect=True)
def test_a_bit_is_flipped_in_every_tenth_block_of_a_mirror(published, boots):
    with (
        far_mirror(published.tree) as liar,
        far_mirror(published.tree) as honest,
    ):
        liar.server.inject("blocks/*", about_every_tenth(flip_bit()))
        with boots(liar, honest) as guest:
            facts = guest.reaches_login(LOGIN_S, after_a_pause=False)
            assert facts["failed_reads"] == 0
            assert standing(facts, liar)["lied"]
            assert not standing(facts, honest)["lied"]
            words = guest.station.run("status", "one")
            assert f"WRONG BYTES were served by {liar.url}; none of them was used" in words
            kept = list((guest.station.home / "cache" / "oscirc" / "blocks").glob("??/*"))
            assert len(kept) > 100
            assert not [file for file in kept if hashlib.sha256(file.read_bytes()).hexdigest() != file.name]
        print(f"\n{standing(facts, liar)['bad_blocks']} times wrong, worst read {facts['worst_stall_ms']} ms")
