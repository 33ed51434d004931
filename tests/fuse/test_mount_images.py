"""Mounts of real images through the real reader, with a directory as the repository."""

import errno
import hashlib
import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from oscirc_blockstore.digests import block_digest
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_fusedriver import control_client
from oscirc_fusedriver.records import MountRecord
from oscirc_fusedriver.unmounting import unmount

from .fuse_world import IMAGE_PROGRAM, Mounted

KIB = 1024
MIB = 1024 * KIB
BLOCK = 256 * KIB
WARM_BLOCKS = 1024


@dataclass
class Image:
    origin: str
    cache: str
    root: str
    disk_size: int
    block_size: int
    data_blocks: int


@pytest.fixture
def publish(tmp_path):
    """Puts blocks, given by position, into a repository."""

    def build(blocks, disk_size: int) -> Image:
        origin = LocalStore(tmp_path / "origin")
        geometry = Geometry(disk_size, BLOCK)
        builder = TableBuilder(geometry, origin.save)
        count = 0
        for position, raw in blocks:
            digest = block_digest(raw)
            origin.save(digest, raw)
            builder.add(position, digest)
            count += 1
        cache = tmp_path / "cache"
        cache.mkdir()
        return Image(str(origin.root), str(cache), builder.finish().digest.hex(), disk_size, BLOCK, count)

    return build


@pytest.fixture
def show(drivers, mountpoint):
    def mount_image(image: Image, **options) -> Mounted:
        process = drivers.start(mountpoint, program=IMAGE_PROGRAM, **asdict(image), options=options)
        return Mounted(process, MountRecord(**drivers.said(process)["ready"]))

    return mount_image


@pytest.fixture
def disk():
    """40 blocks with holes and an end within a block."""
    content = bytearray(random.Random(11).randbytes(40 * BLOCK - 5 * 512))
    for position in (3, 4, 5, 20, 37):
        content[position * BLOCK : (position + 1) * BLOCK] = bytes(BLOCK)
    return bytes(content)


@pytest.fixture
def image(publish, disk):
    blocks = ((at // BLOCK, disk[at : at + BLOCK].ljust(BLOCK, b"\0")) for at in range(0, len(disk), BLOCK))
    return publish(((position, raw) for position, raw in blocks if any(raw)), len(disk))


def cached(image: Image) -> list[Path]:
    return [file for file in Path(image.cache, "blocks").rglob("*") if file.is_file() and len(file.name) == 64]


def test_an_image_is_equal_cold_warm_and_offline(image, disk, show, mountpoint):
    cold = show(image)
    assert cold.disk.read_bytes() == disk
    assert cold.status().reader["cache"]["fetched_blocks"] == 35
    unmount(mountpoint)
    shutil.rmtree(image.origin)
    warm = show(image)
    assert warm.disk.read_bytes() == disk
    status = warm.status()
    assert (status.reader["cache"]["fetched_blocks"], status.driver.waited) == (0, 0)


def test_a_damaged_cached_block_is_fetched_again(image, disk, show, mountpoint):
    assert show(image).disk.read_bytes() == disk
    unmount(mountpoint)
    for file in cached(image)[::3]:
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    again = show(image)
    assert again.disk.read_bytes() == disk
    assert again.status().reader["cache"]["damaged"] == len(cached(image)[::3])


def test_what_is_neither_cached_nor_served_is_an_error_and_the_rest_can_be_read(image, disk, show, mountpoint):
    assert show(image).disk.read_bytes() == disk
    unmount(mountpoint)
    shutil.rmtree(image.origin)
    lost = block_digest(disk[10 * BLOCK : 11 * BLOCK]).hex()
    next(file for file in cached(image) if file.name == lost).unlink()
    mount = show(image)
    with mount.disk.open("rb") as file:
        assert os.pread(file.fileno(), BLOCK, 12 * BLOCK) == disk[12 * BLOCK : 13 * BLOCK]
        with pytest.raises(OSError) as failure:
            os.pread(file.fileno(), 4096, 10 * BLOCK + 4096)
        assert failure.value.errno == errno.EIO
        assert os.pread(file.fileno(), BLOCK, 9 * BLOCK) == disk[9 * BLOCK : 10 * BLOCK]


def test_a_sparse_terabyte_stays_small_in_memory(publish, show):
    chance = random.Random(5)
    positions = sorted(chance.sample(range((1 << 40) // BLOCK), 64))
    blocks = {position: chance.randbytes(BLOCK) for position in positions}
    image = publish(blocks.items(), 1 << 40)
    mount = show(image)
    with mount.disk.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(2000):
            assert os.pread(file.fileno(), 4096, chance.randrange(1 << 28) * 4096) is not None
        for position, raw in blocks.items():
            assert os.pread(file.fileno(), BLOCK, position * BLOCK) == raw
    status = Path(f"/proc/{mount.record.pid}/status").read_text()
    peak_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    assert peak_kb < 200 * 1000


def test_every_block_from_a_warm_cache_is_verified_again(publish, show):
    """The rate at which that goes is measured in bench/warm.py."""
    chance = random.Random(6)
    image = publish(((position, chance.randbytes(BLOCK)) for position in range(WARM_BLOCKS)), WARM_BLOCKS * BLOCK)
    mount = show(image)
    buffer = bytearray(MIB)

    def sweep() -> None:
        with mount.disk.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.readinto(buffer):
                pass

    sweep()
    before = mount.status()
    sweep()
    after = mount.status()
    hits = after.reader["cache"]["file_hits"] - before.reader["cache"]["file_hits"]
    assert hits >= WARM_BLOCKS - 1  # from its file and hashed
    assert after.driver.waited == before.driver.waited


def test_reading_twice_costs_one_pass(image, disk, show):
    mount = show(image)
    digest = hashlib.sha256(disk).digest()
    for _ in range(2):
        calls = mount.calls()
        assert hashlib.sha256(mount.disk.read_bytes()).digest() == digest
    assert mount.calls() == calls


def whole_map(mount):
    states, at = [], 0
    while at is not None:
        part = control_client.block_map(mount.record, at, timeout_s=20)
        states += [state for state, count in part.runs for _ in range(count)]
        at = part.next
    return states


def read(mount, position):
    with mount.disk.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(file.fileno(), 4096, position * BLOCK)


def test_the_map_tells_what_was_read(image, show):
    mount = show(image)
    read(mount, 10)
    states = whole_map(mount)
    assert len(states) == 40
    assert states[10] == "d"
    assert [position for position, state in enumerate(states) if state == "z"] == [3, 4, 5, 20, 37]
    assert states[30] == "a"


def test_the_map_of_a_sparse_terabyte_is_soon_drawn(publish, show):
    chance = random.Random(5)
    positions = sorted(chance.sample(range(1, (1 << 40) // BLOCK), 64))
    mount = show(publish(((position, chance.randbytes(BLOCK)) for position in positions), 1 << 40))
    for position in positions[:8]:
        read(mount, position)
    states = whole_map(mount)
    assert len(states) == (1 << 40) // BLOCK
    assert states.count("d") == 8


def test_a_place_beyond_the_disk_has_no_map(image, show):
    with pytest.raises(UsageError, match="no block"):
        control_client.block_map(show(image).record, 40)


def test_an_outage_is_told_with_its_cause_and_is_over_when_the_read_that_failed_can_be_answered(image, disk, show):
    mount = show(image, deadline_s=0.5)
    assert control_client.retry(mount.record)
    away = Path(image.origin).rename(image.origin + ".away")
    with pytest.raises(OSError) as failure:
        read(mount, 25)
    assert failure.value.errno == errno.EIO
    reader = mount.status().reader
    assert "away" in reader["network_problem"]
    assert reader["waiting_reads"] == 0
    assert not control_client.retry(mount.record)
    away.rename(image.origin)
    assert control_client.retry(mount.record)
    assert mount.status().reader["network_problem"] == ""
    assert read(mount, 25) == disk[25 * BLOCK : 25 * BLOCK + 4096]
