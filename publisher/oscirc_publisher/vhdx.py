"""Judges a VHDX (Hyper-V) before QEMU opens it.

The region table leads to the metadata, and that states the disk's size and whether it has a parent. Refused: a
differencing disk, impossible sizes, tables and blocks outside the file (QEMU reads these as zeros), and items that are
stated twice or not at all. A log that was never replayed is refused by QEMU itself. Its driver does not tell which
parts of the disk are allocated: `data_ranges` reads that from the map (the BAT).

Source: Microsoft's MS-VHDX. Numbers are little endian; GUIDs are in their byte order on disk.
"""

from __future__ import annotations

import struct
import uuid
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oscirc_blockstore.errors import DiskRefusedError

MAGIC = b"vhdxfile"

_REGION_TABLES = (192 << 10, 256 << 10)
_TABLE_BYTES = 64 << 10
_REGION_HEAD = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_METADATA_HEAD = struct.Struct("<8sHH20s")
_ITEM = struct.Struct("<16sIIII")
_MAX_ENTRIES = 2047
_MAX_METADATA_BYTES = 64 << 20
_MIB_SHIFT = 20
_MIB = 1 << _MIB_SHIFT
_MAX_BLOCK_BYTES = 256 << 20
_MAX_DISK_BYTES = 64 << 40
_STATE = 7
_WITH_DATA = (6, 7)  # fully and partially present; all other states read as zeros
_INCOMPLETE = "is it a complete download?"


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


_BAT = _guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = _guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = _guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_DISK_SIZE = _guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_SECTOR_SIZE = _guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PARENT = _guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_HAS_PARENT = 2

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Facts:
    """A sound container: sizes of disk, blocks and sectors in bytes, and where its map stands in the file."""

    size: int
    block_size: int
    sector_size: int
    map_at: int


def check(read: Read, file_size: int) -> Facts:
    """What a sound container states, or `DiskRefusedError` naming what is wrong with it."""
    if read(0, len(MAGIC)) != MAGIC:
        raise DiskRefusedError("this is no vhdx container")
    regions = _regions(read)
    start, size = _within(regions.get(_METADATA), file_size)
    if not 2 * _TABLE_BYTES <= size <= _MAX_METADATA_BYTES:
        raise DiskRefusedError("the vhdx states an impossible size of its metadata")
    items = _items(read(start, _TABLE_BYTES))

    def item(guid: bytes, form: str) -> tuple[int, ...]:
        at, length = items.get(guid, (0, 0))
        needed = struct.calcsize(form)
        if length < needed or not _TABLE_BYTES <= at <= size - length:
            raise DiskRefusedError("the vhdx lacks what it must say about itself")
        return struct.unpack(form, read(start + at, needed))

    block_size, flags = item(_FILE_PARAMETERS, "<II")
    if flags & _HAS_PARENT or _PARENT in items:
        raise DiskRefusedError(
            "the vhdx has a parent, of which it holds the difference",
            hint="merge them first (Hyper-V: Merge-VHD), or: qemu-img convert -O qcow2 OLD NEW",
        )
    (sector_size,), (disk_size,) = item(_SECTOR_SIZE, "<I"), item(_DISK_SIZE, "<Q")
    if sector_size not in (512, 4096) or block_size & (block_size - 1) or not _MIB <= block_size <= _MAX_BLOCK_BYTES:
        raise DiskRefusedError(f"the vhdx states sectors of {sector_size} and blocks of {block_size} bytes")
    map_at, map_size = _within(regions.get(_BAT), file_size)
    if not 0 < disk_size <= _MAX_DISK_BYTES or map_size < 8 * _map_entries(disk_size, block_size, sector_size):
        raise DiskRefusedError("the vhdx states a disk that its map does not cover")
    facts = Facts(disk_size, block_size, sector_size, map_at)
    for _, entries in _map(read, facts):
        furthest = max((entry >> _MIB_SHIFT for entry in set(entries) if entry & _STATE in _WITH_DATA), default=0)
        if furthest and (furthest << _MIB_SHIFT) + block_size > file_size:
            raise DiskRefusedError("the vhdx is damaged or incomplete", hint=_INCOMPLETE)
    return facts


def data_ranges(read: Read, facts: Facts) -> Iterator[tuple[int, int]]:
    """(start, stop) of what the map does not say is zeros, ascending, in bytes of the disk."""
    start = stop = 0
    for first, entries in _map(read, facts):
        if all(entry & _STATE not in _WITH_DATA for entry in set(entries)):
            continue
        for number, entry in enumerate(entries, first):
            if entry & _STATE not in _WITH_DATA:
                continue
            at = number * facts.block_size
            if at != stop or not stop:
                if stop:
                    yield start, stop
                start = at
            stop = min(at + facts.block_size, facts.size)
    if stop:
        yield start, stop


def _map(read: Read, facts: Facts) -> Iterator[tuple[int, array[int]]]:
    """The map's entries about blocks, piece by piece, each with the number of its first block."""
    chunk = _blocks_per_chunk(facts.block_size, facts.sector_size)
    count = -(-facts.size // facts.block_size)
    for first in range(0, count, chunk):
        wanted = min(chunk, count - first)
        entries = array("Q", read(facts.map_at + 8 * (first + first // chunk), 8 * wanted))  # after each: a bitmap's
        if len(entries) != wanted:
            raise DiskRefusedError("the vhdx became shorter while it was read")
        yield first, entries


def _blocks_per_chunk(block_size: int, sector_size: int) -> int:
    return (sector_size << 23) // block_size


def _map_entries(disk_size: int, block_size: int, sector_size: int) -> int:
    count = -(-disk_size // block_size)
    return count + (count - 1) // _blocks_per_chunk(block_size, sector_size)


def _regions(read: Read) -> dict[bytes, tuple[int, int]]:
    """(offset, size) by GUID; the second copy of the table counts where the first one is none."""
    for at in _REGION_TABLES:
        table = read(at, _TABLE_BYTES)
        if len(table) < _TABLE_BYTES or table[:4] != b"regi":
            continue
        _, _, count, _ = _REGION_HEAD.unpack_from(table)
        if count > _MAX_ENTRIES:
            break
        entries = [_REGION.unpack_from(table, _REGION_HEAD.size + n * _REGION.size) for n in range(count)]
        regions = {guid: (start, size) for guid, start, size, _ in entries}
        if len(regions) != count:
            break
        return regions
    raise DiskRefusedError("the vhdx has no sound table of regions", hint=_INCOMPLETE)


def _within(region: tuple[int, int] | None, file_size: int) -> tuple[int, int]:
    if region is None or region[0] % _MIB or not _MIB <= region[0] <= file_size - region[1]:
        raise DiskRefusedError("the vhdx puts its tables outside the file", hint=_INCOMPLETE)
    return region


def _items(table: bytes) -> dict[bytes, tuple[int, int]]:
    """(offset in the region, length) by GUID."""
    if len(table) < _TABLE_BYTES:
        raise DiskRefusedError("the vhdx is cut off", hint=_INCOMPLETE)
    magic, _, count, _ = _METADATA_HEAD.unpack_from(table)
    if magic != b"metadata" or count > _MAX_ENTRIES:
        raise DiskRefusedError("the vhdx has no sound table of metadata")
    items: dict[bytes, tuple[int, int]] = {}
    for number in range(count):
        guid, at, length, _, _ = _ITEM.unpack_from(table, _METADATA_HEAD.size + number * _ITEM.size)
        if guid in items:
            raise DiskRefusedError("the vhdx states something twice")
        items[guid] = (at, length)
    return items
