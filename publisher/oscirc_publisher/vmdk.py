"""Judges a VMDK before QEMU opens it: a hosted sparse extent in one file, with its descriptor inside, and nothing else.

Allowed are `monolithicSparse` and `streamOptimized` (what an OVA holds). Refused: a descriptor that is a file of its
own or names others (`monolithicFlat`, `twoGbMaxExtent…`: their bytes stand in files that it would make us read), a
parent, a header without a capacity (QEMU then goes by the extents of the descriptor), sizes that cannot be, and
grains outside the file: QEMU reads what a truncated file lacks as zeros.

Source: VMware's "Virtual Disk Format 5.0", and what block/vmdk.c of QEMU makes of it. Numbers are little endian.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from oscirc_blockstore.errors import DiskRefusedError

MAGIC = b"KDMV"
SECTOR = 512

Read = Callable[[int, int], bytes]
"""(offset, size): that many bytes of the file, fewer only at its end."""

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_FOOTER = struct.Struct("<QII496s")
_AT_END = (1 << 64) - 1
_FOOTER_SECTORS = 3
_MARKER_FOOTER = 3
_VERSIONS = (1, 2, 3)
_DESCRIPTOR_SECTOR = 1
_MAX_DESCRIPTOR_SECTORS = 2048
_MAX_GRAIN_SECTORS = 4096
_MAX_TABLE_ENTRIES = 512
_MAX_DIRECTORY_ENTRIES = 32 << 20
_COMPRESSED, _DEFLATE = 1 << 16, 1
_KINDS = ("monolithicsparse", "streamoptimized")
_EXTENT = re.compile(r"(rw|rdonly|noaccess)\s+(\d{1,18})\s+(\w+)\s+\"[^\"/]*\"\s*\d*")
_FLAT_HINT = (
    "the bytes of a flat disk are in its other file: publish NAME-flat.vmdk with --format raw; "
    "or make one file of it: qemu-img convert -O qcow2 OLD NEW"
)


@dataclass(frozen=True, slots=True)
class _Header:
    """What counts of a header; all but `flags` in sectors of 512 bytes or entries."""

    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_sectors: int
    table_entries: int
    directory: int
    compression: int


def check(read: Read, file_size: int) -> int:
    """The size in bytes of the disk in a sound container, or `DiskRefusedError` naming what is wrong with it."""
    head = read(0, _HEADER.size)
    if head[:4] != MAGIC:
        raise DiskRefusedError("this is no vmdk that holds a disk by itself", hint=_FLAT_HINT)
    header = _parse(head)
    _check_descriptor(read(header.descriptor * SECTOR, header.descriptor_sectors * SECTOR))
    if header.directory == _AT_END:
        header = _from_footer(read, file_size, header)
    _check_grains(read, header, file_size)
    return header.capacity * SECTOR


def _parse(raw: bytes) -> _Header:
    if len(raw) < _HEADER.size:
        raise DiskRefusedError("the vmdk header is cut off")
    magic, version, flags, capacity, grain, at, sectors, entries, _, directory, _, _, _, compression = _HEADER.unpack(
        raw
    )
    if magic != MAGIC or version not in _VERSIONS:
        raise DiskRefusedError(f"vmdk version {version} is not supported")
    if not capacity:
        raise DiskRefusedError("the vmdk header states no capacity: it would be read from other files", hint=_FLAT_HINT)
    if not 1 <= grain <= _MAX_GRAIN_SECTORS or grain & (grain - 1) or not 1 <= entries <= _MAX_TABLE_ENTRIES:
        raise DiskRefusedError("the vmdk header states impossible grains")
    if -(-capacity // (grain * entries)) > _MAX_DIRECTORY_ENTRIES:
        raise DiskRefusedError("the vmdk header states an impossibly large disk")
    if at != _DESCRIPTOR_SECTOR or not 1 <= sectors <= _MAX_DESCRIPTOR_SECTORS:
        raise DiskRefusedError("the vmdk header puts its descriptor where it cannot be")
    if compression not in (0, _DEFLATE):
        raise DiskRefusedError(f"the vmdk asks for unknown compression ({compression})")
    return _Header(flags, capacity, grain, at, sectors, entries, directory, compression)


def _from_footer(read: Read, file_size: int, header: _Header) -> _Header:
    """A stream states its directory at its end: a marker, a second header, an end-of-stream marker."""
    raw = read(max(0, file_size - _FOOTER_SECTORS * SECTOR), _FOOTER_SECTORS * SECTOR)
    if len(raw) < _FOOTER_SECTORS * SECTOR:
        raise DiskRefusedError("the vmdk is cut off", hint="is it a complete download?")
    _, size, kind, _ = _FOOTER.unpack_from(raw)
    _, last_size, last_kind, _ = _FOOTER.unpack_from(raw, 2 * SECTOR)
    if size or kind != _MARKER_FOOTER or last_size or last_kind or raw[SECTOR : SECTOR + 4] != MAGIC:
        raise DiskRefusedError("the vmdk ends without its footer", hint="is it a complete download?")
    footer = _parse(raw[SECTOR : SECTOR + _HEADER.size])
    if footer.directory == _AT_END or (footer.capacity, footer.grain) != (header.capacity, header.grain):
        raise DiskRefusedError("the vmdk's header and footer contradict each other")
    return footer


def _check_descriptor(raw: bytes) -> None:
    try:
        lines = raw.partition(b"\0")[0].decode("ascii").lower().splitlines()
    except UnicodeDecodeError:
        raise DiskRefusedError("the vmdk's descriptor is not text") from None
    fields: dict[str, str] = {}
    extents = []
    for line in (line.strip() for line in lines):
        name, equals, value = line.partition("=")
        if _EXTENT.fullmatch(line):
            extents.append(line)
        elif equals and name.strip() not in fields:
            fields[name.strip()] = value.strip().strip('"')
        elif line and not line.startswith("#"):
            raise DiskRefusedError(f"the vmdk's descriptor says what is not understood: {line[:80]!r}")
    if fields.get("createtype") not in _KINDS:
        raise DiskRefusedError(
            f"a vmdk of the kind {fields.get('createtype', '')[:40]!r} is not supported", hint=_FLAT_HINT
        )
    if fields.get("parentcid", "ffffffff") != "ffffffff" or "parentfilenamehint" in fields:
        raise DiskRefusedError(
            "the vmdk has a parent, of which it holds the difference",
            hint="flatten it first: qemu-img convert -O qcow2 OLD NEW",
        )
    if len(extents) != 1 or extents[0].split()[2] != "sparse":
        raise DiskRefusedError("the vmdk's descriptor names more than this one file", hint=_FLAT_HINT)


def _check_grains(read: Read, header: _Header, file_size: int) -> None:
    """Every grain table, and every grain that one names, lies in the file."""
    count = -(-header.capacity // (header.grain * header.table_entries))
    least = SECTOR if header.flags & _COMPRESSED else header.grain * SECTOR
    for table in set(_sectors(read, header.directory, count, file_size)) - {0}:
        furthest = max(_sectors(read, table, header.table_entries, file_size))
        if furthest > 1 and furthest * SECTOR + least > -(-file_size // SECTOR) * SECTOR:  # 1: a grain of zeros
            raise DiskRefusedError("the vmdk is damaged or incomplete", hint="is it a complete download?")


def _sectors(read: Read, sector: int, count: int, file_size: int) -> memoryview:
    """`count` sector numbers that stand at `sector`."""
    if not 0 < sector <= file_size // SECTOR - -(-4 * count // SECTOR):
        raise DiskRefusedError("the vmdk puts its tables outside the file", hint="is it a complete download?")
    return _numbers(read(sector * SECTOR, 4 * count), count)


def _numbers(raw: bytes, count: int) -> memoryview:
    if len(raw) != 4 * count:
        raise DiskRefusedError("the vmdk is damaged or incomplete", hint="is it a complete download?")
    numbers = struct.unpack(f"<{count}I", raw)
    return memoryview(bytearray(struct.pack(f"={count}I", *numbers))).cast("I")
