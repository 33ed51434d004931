"""A version with two profiles: a session is recorded by a mount, published beside the boot, and streamed when asked for."""

import json
import os
import time

import pytest
from support.commands import Workstation, serving
from support.fault_server import FaultServer

from oscirc_blockstore import accelerators
from oscirc_blockstore.digests import block_path, digest_of

from .conftest import BLOCK, Published

pytestmark = pytest.mark.fuse
BOOT = range(24)
SESSION = (60, *range(30, 54), 62)


def read(place, disk, positions):
    descriptor = os.open(place / "disk.raw", os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        for at in positions:
            assert os.pread(descriptor, BLOCK, at * BLOCK) == disk[at * BLOCK : (at + 1) * BLOCK]
    finally:
        os.close(descriptor)


def wait_for_the_bundle(reader, place):
    deadline = time.monotonic() + 60
    while (state := reader.json("status", place)["prefetch"]["state"]) in ("starting", "bundle", "streaming"):
        assert time.monotonic() < deadline, state


def bundles(tree):
    """Where the bundle of each profile's name is served."""
    (listing,) = (tree / "accel").glob("*.json")
    listed = accelerators.parse_listing(listing.read_bytes())
    return {name: listed.find(accelerators.BUNDLE, name).path for name in ("boot", "session")}


@pytest.fixture(scope="module")
def two_profiles(tmp_path_factory):
    """A version whose second profile comes from the trace of a mount."""
    base = tmp_path_factory.mktemp("two-profiles")
    published = Published(base, 64, BOOT)
    station, trace, made = published.publisher, base / "session.trace", base / "session.json"
    place = base / "mnt"
    place.mkdir()
    with serving(station, published.repository):
        station.run("mount", "test:alice/tiny@1", place, "--trace", trace)
        read(place, published.disk, SESSION)
        station.run("umount", place)
        facts = station.json("profile", "make", "test:alice/tiny@1", trace, "--name", "session", "-o", made)
        assert (facts["runs"], facts["blocks"]) == (1, len(SESSION))
        assert json.loads(made.read_bytes())["name"] == "session"
        assert "--force" in station.refused("profile", "make", "test:alice/tiny@1", trace, "-o", made, code=6)
        station.run("profile", "add", "test:alice/tiny@1", made)
    return published


@pytest.mark.parametrize(
    ("wanted", "unwanted", "positions", "options"),
    [("session", "boot", SESSION, ("--profile", "session")), ("boot", "session", BOOT, ())],
)
def test_a_mount_streams_the_bundle_of_the_profile_that_is_asked_for_and_no_other(
    two_profiles, tmp_path, wanted, unwanted, positions, options
):
    reader = Workstation(tmp_path / "reader")
    place = tmp_path / "mnt"
    place.mkdir()
    served = bundles(two_profiles.repository.tree)
    with FaultServer(two_profiles.repository.tree) as server:
        reader.run("remote", "add", "m", f"{server.url}#{two_profiles.pin}")
        reader.run("mount", "m:alice/tiny", place, *options)
        try:
            wait_for_the_bundle(reader, place)
            read(place, two_profiles.disk, positions)
            facts = reader.json("status", place)
        finally:
            reader.run("umount", place)
        assert server.asked_of(served[wanted])
        assert not server.asked_of(served[unwanted])
        disk = two_profiles.disk
        files = [block_path(digest_of(disk[at * BLOCK : (at + 1) * BLOCK])) for at in positions]
        assert sum(map(server.count, files)) <= 3  # what is read as the mount begins
    assert facts["prefetch"]["profile"] == wanted
    assert facts["prefetch"]["blocks"] >= len(positions) - 3
