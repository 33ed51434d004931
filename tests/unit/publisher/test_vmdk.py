"""Crafted VMDKs: each is refused before QEMU sees it."""

import struct

import pytest

from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher import vmdk

from .foreign_containers import DISK_BYTES, convert, number, patch, raw_disk

CAPACITY_AT, GRAIN_AT, DESCRIPTOR_AT, ENTRIES_AT, DIRECTORY_AT, COMPRESSION_AT = 12, 20, 28, 44, 56, 77


@pytest.fixture
def container(tmp_path):
    return convert(raw_disk(tmp_path), "vmdk")


def judge(path):
    raw = path.read_bytes()
    return vmdk.check(lambda at, size: raw[at : at + size], len(raw))


def with_text(path, old, new):
    raw = path.read_bytes()
    head, text, rest = raw[:512], raw[512 : 512 + 20 * 512], raw[512 + 20 * 512 :]
    assert old in text
    path.write_bytes(head + text.replace(old, new).rstrip(b"\0").ljust(len(text), b"\0")[: len(text)] + rest)
    return path


def test_a_sound_one_states_its_size(container):
    assert judge(container) == DISK_BYTES


@pytest.mark.parametrize(
    ("at", "raw", "words"),
    [
        (4, struct.pack("<I", 9), "version 9"),
        (CAPACITY_AT, bytes(8), "no capacity"),
        (CAPACITY_AT, struct.pack("<Q", 1 << 60), "impossibly large"),
        (GRAIN_AT, struct.pack("<Q", 3), "grains"),
        (GRAIN_AT, struct.pack("<Q", 1 << 40), "grains"),
        (ENTRIES_AT, struct.pack("<I", 1 << 20), "grains"),
        (DESCRIPTOR_AT, struct.pack("<Q", 5), "descriptor"),
        (DESCRIPTOR_AT + 8, struct.pack("<Q", 1 << 30), "descriptor"),
        (DIRECTORY_AT, struct.pack("<Q", 1 << 40), "outside the file"),
        (DIRECTORY_AT, struct.pack("<Q", (1 << 64) - 1), "footer"),
        (COMPRESSION_AT, struct.pack("<H", 7), "compression"),
        (600, b"\xff\xfe", "not text"),
    ],
)
def test_a_crafted_header_is_refused(container, at, raw, words):
    with pytest.raises(DiskRefusedError, match=words):
        judge(patch(container, at, raw))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'createType="monolithicSparse"', b'createType="monolithicFlat"', "kind"),
        (b'createType="monolithicSparse"', b'createType="vmfsSparse"', "kind"),
        (b"parentCID=ffffffff", b"parentCID=12345678", "parent"),
        (b"parentCID=ffffffff", b'parentFileNameHint="/etc/shadow"', "parent"),
        (b' SPARSE "a.vmdk"', b' SPARSE "a.vmdk"\nRW 1 FLAT "etc" 0', "more than this one file"),
        (b' SPARSE "a.vmdk"', b' FLAT "a.vmdk" 0', "more than this one file"),
        (b' SPARSE "a.vmdk"', b' SPARSE "/etc/shadow"', "not understood"),
        (b"version=1", b"version=1\nsurprise", "not understood"),
        (b"version=1", b'createType="monolithicSparse"\ncreateType="monolithicFlat"', "not understood"),
    ],
)
def test_a_descriptor_that_leads_elsewhere_is_refused(container, old, new, words):
    with pytest.raises(DiskRefusedError, match=words):
        judge(with_text(container, old, new))


def test_a_grain_outside_the_file_is_refused(container):
    directory = number(container, DIRECTORY_AT, "<Q") * 512
    table = number(container, directory, "<I") * 512
    patch(container, table, struct.pack("<I", 1 << 31))
    with pytest.raises(DiskRefusedError, match="incomplete"):
        judge(container)


def test_a_stream_that_states_its_directory_at_its_end_is_judged_by_that(tmp_path):
    path = convert(raw_disk(tmp_path), "vmdk", "-o", "subformat=streamOptimized")
    header = path.read_bytes()[:512]
    marker = struct.pack("<QII496x", 1, 0, 3)
    patch(path, DIRECTORY_AT, struct.pack("<Q", (1 << 64) - 1))
    whole = path.read_bytes().ljust(-(-path.stat().st_size // 512) * 512, b"\0")
    path.write_bytes(whole + marker + header + bytes(512))
    assert judge(path) == DISK_BYTES
    other = header[:CAPACITY_AT] + struct.pack("<Q", 99) + header[CAPACITY_AT + 8 :]
    path.write_bytes(whole + marker + other + bytes(512))
    with pytest.raises(DiskRefusedError, match="contradict"):
        judge(path)


def test_short_files_are_refused(container):
    raw = container.read_bytes()
    for size in (0, 3, 60, 512, 2000, 40_000):
        with pytest.raises(DiskRefusedError):
            vmdk.check(lambda at, length, size=size: raw[:size][at : at + length], size)
