"""Judges a VDI (VirtualBox) before QEMU opens it.

Allowed are dynamic and fixed disks of version 1.1. Refused: a differencing disk (it names a parent), sizes and places
that cannot be, and blocks outside the file: QEMU reads what a truncated file lacks as zeros.

Source: VirtualBox's VDICore.h, and what block/vdi.c of QEMU makes of it. Numbers are little endian.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

from oscirc_blockstore.errors import DiskRefusedError

MAGIC = b"\x7f\x10\xda\xbe"
MAGIC_AT = 64

_HEADER = struct.Struct("<64s4sIIII256sIIIIIIIQIIII16s16s16s16s")
_VERSION_1_1 = 0x00010001
_KINDS = (1, 2)  # dynamic, fixed
_SECTOR = 512
_BLOCK_BYTES = 1 << 20
_MAX_BLOCKS = 0x1FFF_FFFF
_FREE = 0xFFFF_FFFE  # this and the next number: not allocated, or known to be zeros
_PIECE_ENTRIES = 1 << 20
_NOBODY = bytes(16)
_INCOMPLETE = "is it a complete download?"


def check(read: Callable[[int, int], bytes], file_size: int) -> int:
    """The size in bytes of the disk in a sound container, or `DiskRefusedError` naming what is wrong with it."""
    raw = read(0, _HEADER.size)
    if len(raw) < _HEADER.size or raw[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        raise DiskRefusedError("this is no vdi container")
    (_, _, version, _, kind, _, _, map_at, data_at, _, _, _, sector, _, size, block, extra, count, _, *owners) = (
        _HEADER.unpack(raw)
    )
    if version != _VERSION_1_1:
        raise DiskRefusedError(f"vdi version {version >> 16}.{version & 0xFFFF} is not supported")
    if any(owner != _NOBODY for owner in owners[2:]) or kind not in _KINDS:
        raise DiskRefusedError(
            "the vdi is one of several that make a disk together, or a snapshot",
            hint="make one file of it: VBoxManage clonemedium, or qemu-img convert -O qcow2 OLD NEW",
        )
    if sector != _SECTOR or block != _BLOCK_BYTES or extra or not 0 < count <= _MAX_BLOCKS:
        raise DiskRefusedError("the vdi header states impossible blocks")
    if size > count * block or map_at % _SECTOR or data_at % _SECTOR:
        raise DiskRefusedError("the vdi header contradicts itself")
    if map_at < _SECTOR or map_at + 4 * count > data_at or data_at > file_size:
        raise DiskRefusedError("the vdi header puts its map outside the file", hint=_INCOMPLETE)
    if data_at + (_furthest(read, map_at, count) + 1) * block > file_size:
        raise DiskRefusedError("the vdi is damaged or incomplete", hint=_INCOMPLETE)
    return int(size)


def _furthest(read: Callable[[int, int], bytes], at: int, count: int) -> int:
    """The highest block of the file that the map names, -1 for none."""
    furthest = -1
    for start in range(0, count, _PIECE_ENTRIES):
        wanted = min(_PIECE_ENTRIES, count - start)
        raw = read(at + 4 * start, 4 * wanted)
        if len(raw) != 4 * wanted:
            raise DiskRefusedError("the vdi is damaged or incomplete", hint=_INCOMPLETE)
        entries = array("I", raw)
        furthest = max(furthest, max((entry for entry in set(entries) if entry < _FREE), default=-1))
    return furthest
