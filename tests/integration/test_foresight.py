"""An image that nobody recorded a boot of, over real HTTP: what a boot will read is here before it is read."""

import random
import threading
import time

import pytest
from support import ext4_images
from support.fault_server import FaultServer
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.ext4 import ROOT_INODE, Ext4
from oscirc_remote.opening import open_image
from oscirc_remote.prefetch import PrefetchOptions
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver

MIB = 1 << 20
FILES = {
    "usr/share/doc/book": 2 * MIB,
    "boot/vmlinuz-6.1.0-10-amd64": MIB,
    "boot/initrd.img-6.1.0-10-amd64": MIB,
    "home/me/film": 6 * MIB,
    "usr/lib/systemd/systemd": MIB // 2,
    "usr/lib/x86_64-linux-gnu/libc.so.6": MIB // 2,
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    source = random.Random(5)
    files = {name: source.randbytes(size) for name, size in FILES.items()}
    return ext4_images.make(tmp_path_factory.mktemp("disk") / "disk", files, size=32 * MIB)


@pytest.fixture
def reader(disk, tmp_path):
    repository = RepositorySimulator()
    repository.publish("alice", "debian", "1", disk.read_bytes())
    with FaultServer(repository.files) as server:
        remotes = Remotes(tmp_path / "remotes")
        remotes.add("home", repository.line(server.url))
        reader = open_image(Resolver(remotes).resolve("alice/debian"), tmp_path / "cache", prefetch=PrefetchOptions())
        yield reader
        reader.close()


def positions(disk, path):
    file_system = Ext4(ext4_images.reader(disk), ByteRange(0, disk.stat().st_size))
    inode = file_system.inode(ROOT_INODE)
    for name in path.split("/"):
        inode = file_system.inode(file_system.entries(inode)[name])
    pieces = file_system.ranges(inode)
    return [at for piece in pieces for at in range(piece.start // BLOCK_SIZE, (piece.stop - 1) // BLOCK_SIZE + 1)]


def begin(reader, disk, path="boot/vmlinuz-6.1.0-10-amd64"):
    """Read as a boot loader does: the beginning of the disk, then a kernel."""
    reader.read(0, 4096)
    for position in positions(disk, path)[:6]:
        reader.read(position * BLOCK_SIZE, 4096)


def is_here(reader, position):
    return reader.read_if_resident(position * BLOCK_SIZE, 16) is not None


def test_what_boots_read_comes_unasked_and_nothing_else(reader, disk):
    settled = threading.Event()
    reader.on_settled(settled.set)
    begin(reader, disk)
    assert settled.wait(30)
    for path in ("boot/initrd.img-6.1.0-10-amd64", "usr/lib/systemd/systemd", "usr/lib/x86_64-linux-gnu/libc.so.6"):
        assert all(is_here(reader, position) for position in positions(disk, path)), path
    assert not any(is_here(reader, position) for position in positions(disk, "home/me/film")[4:-1])
    status = reader.status()
    assert status.cache.prefetched_blocks > 0
    assert status.prefetch.failures == 0


def test_a_mount_that_nobody_reads_fetches_nothing(reader):
    reader.read(0, 4096)
    until = time.monotonic() + 30
    while time.monotonic() < until and reader.status().prefetch.state != "foresight":
        time.sleep(0.01)
    assert reader.status().prefetch.state == "foresight"
    assert reader.status().cache.fetched_blocks <= 3  # the one that was read, and its guessed neighbours


def test_bytes_are_those_of_the_disk_whatever_was_guessed(reader, disk):
    raw = disk.read_bytes()
    begin(reader, disk)
    source = random.Random(6)
    for _ in range(200):
        at = source.randrange(len(raw))
        size = source.randrange(1, 300_000)
        assert reader.read(at, size) == raw[at : at + size]


def test_closing_in_the_midst_of_it_ends_it(reader, disk):
    begin(reader, disk)
    reader.close()
    assert all(thread.name != "oscirc-prefetch" for thread in threading.enumerate())
