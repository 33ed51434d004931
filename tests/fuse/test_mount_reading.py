"""What a program sees that reads a mounted disk."""

import errno
import hashlib
import mmap
import os
import random
import stat
import subprocess

import pytest

from oscirc_fusedriver.pagecache import PAGE, rest_of_blocks

from .fuse_world import until

KIB = 1024
MIB = 1024 * KIB


def sha256(path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(params=["inline", "in threads"])
def either(request, mounted):
    """Whatever way the reads are served."""
    return mounted(resident=request.param == "inline")


def test_the_whole_disk_is_equal(either, disk_file):
    assert sha256(either.disk) == sha256(disk_file)


def test_reads_at_odd_offsets_are_exact(either, disk_file):
    expected = disk_file.read_bytes()
    chance = random.Random(3)
    descriptor = os.open(either.disk, os.O_RDONLY)
    try:
        for _ in range(300):
            offset = chance.randrange(len(expected))
            size = chance.choice((1, 511, 4096, 65537, 300_000))
            assert os.pread(descriptor, size, offset) == expected[offset : offset + size]
    finally:
        os.close(descriptor)


def test_the_end_of_the_disk(either, disk_file):
    expected = disk_file.read_bytes()
    size = len(expected)
    with either.disk.open("rb") as file:
        assert os.pread(file.fileno(), 10000, size - 100) == expected[-100:]
        assert os.pread(file.fileno(), 10000, size) == b""
        assert os.pread(file.fileno(), 10000, size + 12345) == b""
        assert file.seek(0, os.SEEK_END) == size


def test_a_mapping_is_equal(either, disk_file):
    expected = disk_file.read_bytes()
    with either.disk.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[5 * MIB : 5 * MIB + 10] == bytes(10)
        assert mapped[:] == expected


def test_reads_past_the_page_cache_are_exact(either, disk_file):
    expected = disk_file.read_bytes()
    descriptor = os.open(either.disk, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, MIB)
    try:
        for offset in (0, 512, 3 * MIB, len(expected) // 512 * 512 - 4096):
            got = os.preadv(descriptor, [buffer], offset)
            assert buffer[:got] == expected[offset : offset + MIB]
    finally:
        buffer.close()
        os.close(descriptor)


def test_without_a_page_cache_it_reads_the_same(mounted, disk_file):
    mount = mounted(resident=True, options={"direct_io": True})
    assert sha256(mount.disk) == sha256(disk_file)
    first = mount.calls()
    assert sha256(mount.disk) == sha256(disk_file)
    assert mount.calls() >= 2 * first - 10  # a recording mount sees every read


def test_a_second_read_makes_no_call(either, disk_file):
    assert sha256(either.disk) == sha256(disk_file)
    calls = either.calls()
    assert calls > 0
    assert sha256(either.disk) == sha256(disk_file)
    with either.disk.open("rb") as file:
        assert os.pread(file.fileno(), 4096, 12345)
    assert either.calls() == calls


def test_many_readers_at_once(mounted, disk_file):
    mount = mounted(resident=False)
    expected = sha256(disk_file)
    readers = [subprocess.Popen(["sha256sum", mount.disk], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert {reader.communicate(timeout=60)[0].split()[0] for reader in readers} == {expected}


def test_one_file_that_cannot_change(mounted, disk_file):
    mount = mounted(resident=True)
    assert [entry.name for entry in os.scandir(mount.mountpoint)] == ["disk.raw"]
    status = mount.disk.stat()
    assert stat.S_ISREG(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert (status.st_size, status.st_mtime, status.st_uid) == (disk_file.stat().st_size, 0, os.getuid())
    assert not (mount.mountpoint / "other").exists()
    space = os.statvfs(mount.mountpoint)
    assert (space.f_bavail, space.f_blocks * space.f_frsize >= status.st_size) == (0, True)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda place: os.open(place / "disk.raw", os.O_RDWR),
        lambda place: os.open(place / "disk.raw", os.O_WRONLY | os.O_TRUNC),
        lambda place: (place / "new").write_bytes(b"x"),
        lambda place: (place / "new").mkdir(),
        lambda place: (place / "disk.raw").unlink(),
        lambda place: (place / "disk.raw").rename(place / "other"),
        lambda place: (place / "disk.raw").chmod(0o600),
        lambda place: os.truncate(place / "disk.raw", 0),
        lambda place: os.utime(place / "disk.raw", (1, 1)),
        lambda place: (place / "link").symlink_to("disk.raw"),
        lambda place: os.setxattr(place / "disk.raw", "user.x", b"y"),
    ],
)
def test_nothing_can_be_written(mounted, attempt):
    mount = mounted(resident=True)
    with pytest.raises(OSError) as refusal:
        attempt(mount.mountpoint)
    assert refusal.value.errno == errno.EROFS


def test_a_terabyte_mounts_at_once_and_its_end_can_be_read(mounted):
    mount = mounted(resident=True, size=1 << 40)
    assert mount.disk.stat().st_size == 1 << 40
    with mount.disk.open("rb") as file:
        assert os.pread(file.fileno(), 8192, (1 << 40) - 4096) == bytes(4096)


def test_the_rest_of_a_fetched_block_is_pushed_into_the_page_cache(mounted, disk_file):
    expected = disk_file.read_bytes()
    mount = mounted(block_size=256 * KIB, options={"read_ahead_kb": 0})
    at = 4 * 256 * KIB + 100 * KIB  # 100 kB before it and 152 after it in its block
    with mount.disk.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        first_read = (0, (len(expected) - PAGE) // PAGE * PAGE)  # of which the rests are pushed, too
        rests = [rest_of_blocks(at, PAGE, block_size=256 * KIB, disk_size=len(expected)) for at in first_read]
        before = sum(run.size for runs in rests for run in runs)
        until(lambda: mount.status().driver.stored_bytes == before, "what mounting read is pushed")
        assert os.pread(file.fileno(), 4096, at) == expected[at : at + 4096]
        until(lambda: mount.status().driver.stored_bytes == before + 252 * KIB, "the rest is pushed")
        calls = mount.calls()
        assert os.pread(file.fileno(), 256 * KIB, MIB) == expected[MIB : MIB + 256 * KIB]
        assert mount.calls() == calls
        end = os.fstat(file.fileno()).st_size
        assert os.pread(file.fileno(), 100, end - 100) == expected[-100:]
    assert mount.disk.stat().st_size == len(expected)
    assert sha256(mount.disk) == sha256(disk_file)


def test_pushing_can_be_turned_off(mounted, disk_file):
    mount = mounted(block_size=256 * KIB, options={"push_pages": False})
    assert sha256(mount.disk) == sha256(disk_file)
    assert mount.status().driver.stores == 0
