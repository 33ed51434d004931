"""Crafted VHDXs: each is refused before QEMU sees it. Ranges with data come from the container's own map."""

import struct

import pytest

from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher import vhdx
from oscirc_publisher.disks import open_disk

from .foreign_containers import DISK_BYTES, MIB, convert, patch, raw_disk

REGIONS_AT = 192 << 10


@pytest.fixture
def container(tmp_path):
    return convert(raw_disk(tmp_path), "vhdx")


def judge(path):
    raw = path.read_bytes()
    return vhdx.check(lambda at, size: raw[at : at + size], len(raw))


def region(path, guid):
    """Where the region's entry stands, and the offset that it states."""
    raw = path.read_bytes()
    at = raw.index(guid, REGIONS_AT)
    return at, struct.unpack_from("<Q", raw, at + 16)[0]


def item(path, guid):
    """Where the item's entry stands, and where its value does."""
    raw = path.read_bytes()
    _, metadata = region(path, vhdx._METADATA)
    at = raw.index(guid, metadata)
    return at, metadata + struct.unpack_from("<I", raw, at + 16)[0]


def test_a_sound_one_states_its_size(container):
    facts = judge(container)
    assert (facts.size, facts.block_size) == (DISK_BYTES, 8 * MIB)


def test_a_parent_is_refused(container):
    _, value = item(container, vhdx._FILE_PARAMETERS)
    patch(container, value + 4, struct.pack("<I", 2))
    for declared in (None, "vhdx"):
        with pytest.raises(DiskRefusedError, match="parent"):
            open_disk(container, declared)


def test_a_locator_of_a_parent_is_refused(container):
    entry, _ = item(container, vhdx._guid("beca12ab-b2e6-4523-93ef-c309e000c746"))  # page 83 data
    with pytest.raises(DiskRefusedError, match="parent"):
        judge(patch(container, entry, vhdx._PARENT))


@pytest.mark.parametrize(
    ("guid", "raw", "words"),
    [
        (vhdx._SECTOR_SIZE, struct.pack("<I", 100), "sectors of 100"),
        (vhdx._FILE_PARAMETERS, struct.pack("<I", 3 * MIB), "blocks of"),
        (vhdx._FILE_PARAMETERS, struct.pack("<I", 0), "blocks of"),
        (vhdx._DISK_SIZE, struct.pack("<Q", 1 << 60), "does not cover"),
        (vhdx._DISK_SIZE, bytes(8), "does not cover"),
    ],
)
def test_sizes_that_cannot_be_are_refused(container, guid, raw, words):
    _, value = item(container, guid)
    with pytest.raises(DiskRefusedError, match=words):
        judge(patch(container, value, raw))


def test_what_is_stated_twice_or_not_at_all_is_refused(container):
    entry, _ = item(container, vhdx._SECTOR_SIZE)
    raw = container.read_bytes()
    with pytest.raises(DiskRefusedError, match="twice"):
        judge(patch(container, entry, vhdx._DISK_SIZE))
    container.write_bytes(raw)
    with pytest.raises(DiskRefusedError, match="lacks"):
        judge(patch(container, entry, bytes(16)))


@pytest.mark.parametrize("guid", [vhdx._METADATA, vhdx._BAT])
def test_tables_outside_the_file_are_refused(container, guid):
    entry, _ = region(container, guid)
    with pytest.raises(DiskRefusedError, match="outside the file"):
        judge(patch(container, entry + 16, struct.pack("<Q", 1 << 40)))


def test_an_endless_table_of_regions_is_refused(container):
    with pytest.raises(DiskRefusedError, match="regions"):
        judge(patch(container, REGIONS_AT + 8, struct.pack("<I", 1 << 30)))


def test_the_second_copy_of_the_regions_counts_where_the_first_is_none(container):
    assert judge(patch(container, REGIONS_AT, b"none")).size == DISK_BYTES


def test_ranges_pass_over_the_entries_of_bitmaps():
    facts = vhdx.Facts(size=3 * 4096 * MIB + 512, block_size=MIB, sector_size=512, map_at=0)  # 4096 blocks a chunk
    entries = [0] * (3 * 4096 + 3 + 1)
    entries[4095] = entries[4096 + 1] = 6  # the last block of the first chunk, the first of the second
    entries[4096] = 6 | 5 << 20  # a bitmap
    entries[3 * 4096 + 3] = 7
    raw = struct.pack(f"<{len(entries)}Q", *entries)
    found = list(vhdx.data_ranges(lambda at, size: raw[at : at + size], facts))
    assert found == [(4095 * MIB, 4097 * MIB), (3 * 4096 * MIB, 3 * 4096 * MIB + 512)]


def test_short_files_are_refused(container):
    raw = container.read_bytes()
    for size in (0, 8, REGIONS_AT, REGIONS_AT + 100, MIB, 2 * MIB, 3 * MIB):
        with pytest.raises(DiskRefusedError):
            vhdx.check(lambda at, length, size=size: raw[:size][at : at + length], size)
