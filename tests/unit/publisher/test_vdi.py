"""Crafted VDIs: each is refused before QEMU sees it."""

import struct

import pytest

from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher import vdi

from .foreign_containers import DISK_BYTES, convert, number, patch, raw_disk

MAP_AT, DATA_AT, SECTOR_AT, SIZE_AT, BLOCK_AT, COUNT_AT, LINK_AT, PARENT_AT = 340, 344, 360, 368, 376, 384, 424, 440


@pytest.fixture
def container(tmp_path):
    return convert(raw_disk(tmp_path), "vdi")


def judge(path):
    raw = path.read_bytes()
    return vdi.check(lambda at, size: raw[at : at + size], len(raw))


def test_a_sound_one_states_its_size(container):
    assert judge(container) == DISK_BYTES


@pytest.mark.parametrize(
    ("at", "raw", "words"),
    [
        (64, b"none", "no vdi"),
        (68, struct.pack("<I", 0x00020000), r"version 2\.0"),
        (76, struct.pack("<I", 4), "several"),
        (LINK_AT, b"\x01" * 16, "several"),
        (PARENT_AT, b"\x01" * 16, "several"),
        (SECTOR_AT, struct.pack("<I", 4096), "impossible blocks"),
        (BLOCK_AT, struct.pack("<I", 4096), "impossible blocks"),
        (COUNT_AT, bytes(4), "impossible blocks"),
        (COUNT_AT, b"\xff\xff\xff\xff", "impossible blocks"),
        (COUNT_AT, struct.pack("<I", 1 << 28), "outside the file"),
        (SIZE_AT, struct.pack("<Q", 1 << 60), "contradicts"),
        (MAP_AT, struct.pack("<I", 7), "contradicts"),
        (DATA_AT, struct.pack("<I", 1 << 30), "outside the file"),
        (MAP_AT, bytes(4), "outside the file"),
    ],
)
def test_a_crafted_header_is_refused(container, at, raw, words):
    with pytest.raises(DiskRefusedError, match=words):
        judge(patch(container, at, raw))


def test_a_block_outside_the_file_is_refused(container):
    patch(container, number(container, MAP_AT, "<I") + 4 * 7, struct.pack("<I", 40))
    with pytest.raises(DiskRefusedError, match="incomplete"):
        judge(container)


def test_short_files_are_refused(container):
    raw = container.read_bytes()
    for size in (0, 70, 455, 512, 520, 1 << 20):
        with pytest.raises(DiskRefusedError):
            vdi.check(lambda at, length, size=size: raw[:size][at : at + length], size)
