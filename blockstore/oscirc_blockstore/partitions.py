"""Finds the partitions of a disk: GPT and MBR, read-only, bounded, whatever the disk holds.

UEFI Specification 2.10, chapter 5. Checksums are not compared: what is found here is advice (where a file system may
begin), and whoever uses it judges what stands there. Sectors are 512 bytes, as on every disk that is published here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from oscirc_blockstore.disk_source import ByteRange

SECTOR_BYTES = 512
MAX_PARTITIONS = 128
HEAD_BYTES = 34 * SECTOR_BYTES
_MBR_TABLE_AT = 446
_MBR_ENTRY_BYTES = 16
_GPT_ENTRY_BYTES = 128
_PROTECTIVE = 0xEE

Read = Callable[[int, int], bytes]
"""Bytes of a disk: offset and size; fewer only at its end."""


def find_partitions(read: Read, disk_size: int) -> list[ByteRange]:
    """The partitions in the order of their table, those within the disk; the whole disk where there is no table."""
    head = read(0, min(HEAD_BYTES, disk_size))
    if len(head) < 2 * SECTOR_BYTES or head[510:512] != b"\x55\xaa":
        return [ByteRange(0, disk_size)]
    entries = [head[at : at + _MBR_ENTRY_BYTES] for at in range(_MBR_TABLE_AT, _MBR_TABLE_AT + 64, _MBR_ENTRY_BYTES)]
    if any(entry[4] == _PROTECTIVE for entry in entries) and head[512:520] == b"EFI PART":
        return _within(_gpt(read, head), disk_size)
    found = []
    for entry in entries:
        first, count = struct.unpack_from("<II", entry, 8)
        if entry[4] and count:
            found.append((first, first + count))
    return _within(found, disk_size) or [ByteRange(0, disk_size)]


def _gpt(read: Read, head: bytes) -> list[tuple[int, int]]:
    table_at, count, size = struct.unpack_from("<QII", head, 512 + 72)
    if size != _GPT_ENTRY_BYTES:
        return []
    raw = read(table_at * SECTOR_BYTES, min(count, MAX_PARTITIONS) * size)
    found = []
    for at in range(0, len(raw) - size + 1, size):
        if any(raw[at : at + 16]):
            first, last = struct.unpack_from("<QQ", raw, at + 32)
            found.append((first, last + 1))
    return found


def _within(sectors: list[tuple[int, int]], disk_size: int) -> list[ByteRange]:
    return [
        ByteRange(first * SECTOR_BYTES, stop * SECTOR_BYTES)
        for first, stop in sectors[:MAX_PARTITIONS]
        if 0 <= first < stop and stop * SECTOR_BYTES <= disk_size
    ]
