"""Bundles from plain static files: nginx serves the tree, nothing of ours runs on the server's side."""

import os
import random
import time

import pytest
from support.commands import Workstation, add_publisher, initialise, serving
from support.nginx import nginx

from oscirc_blockstore import accelerators, bundle
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile

pytestmark = pytest.mark.fuse
BLOCK = 256 << 10
BLOCKS = 100
TOUCHED = (0, BLOCKS - 1, *range(1, 80))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A released disk with a bundle of three segments; its server is gone."""
    directory = tmp_path_factory.mktemp("published")
    publisher = Workstation(directory / "publisher")
    repository = initialise(publisher, directory / "repository")
    disk = directory / "disk.raw"
    chance = random.Random(3)
    disk.write_bytes(b"".join(chance.randbytes(4096) * (BLOCK // 4096) for _ in range(BLOCKS)))
    recorded = directory / "profile.json"
    recorded.write_bytes(Profile(digest_of(b"another version"), "boot", 2, TOUCHED).serialise())
    with serving(publisher, repository):
        add_publisher(publisher, repository, "alice")
        publisher.run("publish", disk, "test:alice/disk@1", "--key", "alice", "--profile", recorded)
    return repository, disk


@pytest.fixture
def world(published, tmp_path):
    """A new client, and nginx at the address that the server had."""
    repository, disk = published
    with nginx(repository.tree, tmp_path / "nginx", repository.port) as served:
        client = Workstation(tmp_path / "client")
        client.run("remote", "add", "test", repository.url)
        served.forget()
        yield client, served, disk, repository.tree


def the_bundle(tree):
    """The index of the only bundle, and the path that it is served under."""
    (listing,) = (tree / "accel").glob("*.json")
    found = accelerators.parse_listing(listing.read_bytes()).find(accelerators.BUNDLE, "boot")
    raw = (tree / found.path).read_bytes()
    return bundle.parse_index(raw[: found.index_length]), f"/{found.path}"


@pytest.fixture
def mounted(world, tmp_path):
    """Mounts for the length of a block of code; gives the disk's descriptor and what `status` says when asked."""
    client, *_ = world
    place = tmp_path / "mnt"
    place.mkdir()

    class Mounted:
        def __init__(self, reference, *options):
            self.command = ("mount", reference, place, *options)

        def __enter__(self):
            client.run(*self.command)
            self.descriptor = os.open(place / "disk.raw", os.O_RDONLY)
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            return self

        def __exit__(self, *_):
            os.close(self.descriptor)
            client.run("umount", place)

        def block(self, position):
            return os.pread(self.descriptor, BLOCK, position * BLOCK)

        def wait_for_the_bundle(self):
            deadline = time.monotonic() + 60
            while (state := client.json("status", place)["prefetch"]["state"]) in ("starting", "bundle", "streaming"):
                assert time.monotonic() < deadline, state

    return Mounted


def test_a_boots_blocks_come_in_one_stream_and_are_the_disks(world, mounted):
    _, served, disk, tree = world
    content = disk.read_bytes()
    index, path = the_bundle(tree)
    assert len(index.segments) == 3
    with mounted("test:alice/disk") as mount:
        for position in TOUCHED:
            assert mount.block(position) == content[position * BLOCK : (position + 1) * BLOCK]
        mount.wait_for_the_bundle()
    (asked,) = served.asked(path)
    assert asked.status in (200, 206)
    assert asked.sent_bytes == index.length
    assert len([each for each in served.asked("/blocks/") if each.status == 200]) <= 3  # the first read of a mount
    assert served.asked("/api/") == []


def test_segments_that_are_here_are_passed_over_by_range_requests(world, mounted):
    _, served, disk, tree = world
    content = disk.read_bytes()
    index, path = the_bundle(tree)
    first, *others = index.segments
    with mounted("test:alice/disk@1", "--no-prefetch") as mount:
        for position in TOUCHED[: len(first.entries)]:
            mount.block(position)
    assert served.asked(path) == []
    served.forget()
    with mounted("test:alice/disk@1") as mount:
        mount.wait_for_the_bundle()
        for position in TOUCHED:
            assert mount.block(position) == content[position * BLOCK : (position + 1) * BLOCK]
    ranges = [(each.status, each.byte_range) for each in served.asked(path)]
    assert ranges == [
        (206, f"bytes=0-{first.offset - 1}"),
        (206, f"bytes={others[0].offset}-{index.length - 1}"),
    ]
    assert sum(each.sent_bytes for each in served.asked(path)) == index.length - first.length
