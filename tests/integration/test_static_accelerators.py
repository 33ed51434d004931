"""Bundles from plain static files: nginx serves the tree, a bucket does, or a cache in front of one, as a CDN is.

Nothing of ours runs on the server's side.
"""

import os
import random
import time

import pytest
from support import front as fronts
from support.certificates import certificate
from support.commands import Workstation, add_publisher, free_port, initialise, serving
from support.fault_server import FaultServer
from support.nginx import nginx
from support.s3 import s3_server

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
            if position == 0:
                mount.wait_for_the_bundle()  # which a busy machine may take for one that stalls
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


@pytest.fixture(scope="module")
def bucket(published, tmp_path_factory):
    """The tree as a bucket that everybody may read; the S3 server, and the bucket's name."""
    repository, _ = published
    work = tmp_path_factory.mktemp("bucket")
    (work / "buckets").mkdir()
    (work / "buckets" / "images").symlink_to(repository.tree)
    with s3_server(work, anonymous=True) as store:
        yield store, "images"


def boot_reads(client, disk, place, positions=TOUCHED, *options):
    """Mount and read blocks as a guest reads; what `status` said of the mount then."""
    client.run("mount", "test:alice/disk", place, *options)
    try:
        content = disk.read_bytes()
        descriptor = os.open(place / "disk.raw", os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        try:
            for position in positions:
                read = os.pread(descriptor, BLOCK, position * BLOCK)
                assert read == content[position * BLOCK : (position + 1) * BLOCK]
        finally:
            os.close(descriptor)
        return client.json("status", place)
    finally:
        client.run("umount", place)


def new_client(home, place, line, **extra):
    """A workstation that knows the repository, and where it is to mount."""
    client = Workstation(home, extra=extra)
    client.run("remote", "add", "test", line)
    place.mkdir()
    return client


def test_a_bucket_streams_the_bundle(published, bucket, tmp_path):
    repository, disk = published
    store, name = bucket
    pin = repository.url.partition("#")[2]
    place = tmp_path / "mnt"
    facts = boot_reads(new_client(tmp_path / "client", place, f"{store.endpoint}/{name}#{pin}"), disk, place)
    assert facts["prefetch"]["blocks"] >= len(TOUCHED) - 3  # a mount's first read is of blocks of its own
    assert facts["fetched_blocks"] <= len(TOUCHED)
    assert facts["requests"] <= 12
    assert [mirror["demoted"] for mirror in facts["mirrors"]] == [False]


def test_a_bucket_gives_the_segments_that_are_not_here(published, bucket, tmp_path):
    """rclone answers a request for a range with status 200, and says in Content-Range that it is one."""
    repository, disk = published
    store, name = bucket
    index, _ = the_bundle(repository.tree)
    here = len(index.segments[0].entries)
    pin, place = repository.url.partition("#")[2], tmp_path / "mnt"
    client = new_client(tmp_path / "client", place, f"{store.endpoint}/{name}#{pin}")
    boot_reads(client, disk, place, TOUCHED[:here], "--no-prefetch")
    facts = boot_reads(client, disk, place, TOUCHED)
    assert facts["prefetch"]["failures"] == 0, facts["prefetch"]["last_problem"]
    assert facts["prefetch"]["blocks"] >= len(TOUCHED) - here - 3
    assert facts["requests"] <= 12


def test_where_ranges_are_not_known_a_stream_comes_whole_and_what_is_passed_over_as_blocks(published, tmp_path):
    repository, disk = published
    index, path = the_bundle(repository.tree)
    here = len(index.segments[0].entries)
    pin, place, raw = repository.url.partition("#")[2], tmp_path / "mnt", (repository.tree / path[1:]).read_bytes()

    def whole(answer):
        answer.status, answer.body, answer.declared = 200, raw, len(raw)
        answer.headers.pop("Content-Range", None)

    with FaultServer(repository.tree) as server:
        server.inject(path[1:], whole)
        line = f"{server.url}#{pin}"
        facts = boot_reads(new_client(tmp_path / "client", place, line), disk, place)
        assert facts["prefetch"]["blocks"] >= len(TOUCHED) - 3
        assert server.count("blocks/*") <= 12

        again = tmp_path / "again"
        other = new_client(tmp_path / "other", again, line)
        boot_reads(other, disk, again, TOUCHED[:here], "--no-prefetch")
        server.forget()
        boot_reads(other, disk, again, TOUCHED)
        assert server.count("blocks/*") >= len(TOUCHED) - here - 3


def test_a_cache_before_a_bucket_streams_it_and_then_has_it(published, bucket, tmp_path):
    repository, disk = published
    store, name = bucket
    pin, pem = repository.url.partition("#")[2], certificate(tmp_path)
    front = fronts.new_front(tmp_path / "front")
    _, path = the_bundle(repository.tree)
    changes = fronts.compose_changes(front, free_port(), store.port, name, pem)
    with fronts.running(front, "compose", changes):
        cached = []
        for number in (1, 2):
            place = tmp_path / f"mnt-{number}"
            client = new_client(tmp_path / f"client-{number}", place, f"{front.url}#{pin}", SSL_CERT_FILE=str(pem))
            before = len(front.log())
            facts = boot_reads(client, disk, place)
            assert facts["prefetch"]["blocks"] >= len(TOUCHED) - 3
            asked = [line for line in front.log()[before:] if str(line["path"]).endswith(path)]
            assert {line["status"] for line in asked} <= {200, 206}
            cached.append({line["cache"] for line in asked})
    assert cached == [{"MISS"}, {"HIT"}]
