"""Writes partition tables into a disk file: an MBR for BIOS, a GPT for UEFI.

By hand, not by sfdisk, because sfdisk ends with `sync()`: that waits for every file system of the machine, minutes when
others write, for ever when a FUSE mount hangs.

Layout of the MBR and of the GPT (header, entries, their second copy at the disk's end, the protective MBR): UEFI
Specification 2.10, chapter 5. All numbers are little-endian, all positions count sectors of 512 bytes.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

SECTOR_BYTES = 512
EFI_SYSTEM = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
# What a GPT takes at the end of the disk, rounded up so that partitions end on a whole MiB.
GPT_TAIL_BYTES = 1 << 20

_MBR_TABLE_AT = 440  # boot code ends here; disk signature, two zero bytes and four entries of 16 bytes follow
_MBR_LINUX = 0x83
_MBR_PROTECTIVE = 0xEE
_ACTIVE = 0x80
# Geometry that says "use the sector numbers instead".
_NO_GEOMETRY = b"\xfe\xff\xff"
_GPT_ENTRIES = 128
_GPT_ENTRY_BYTES = 128
_GPT_TABLE_SECTORS = _GPT_ENTRIES * _GPT_ENTRY_BYTES // SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a GPT: its place in bytes, what it is for, its own identifier and its name."""

    start_bytes: int
    size_bytes: int
    kind: UUID
    uuid: UUID
    name: str


def write_mbr(disk: Path, *, signature: int, start_bytes: int) -> None:
    """Give `disk` one active Linux partition from `start_bytes` to its end; the boot code stays as it is."""
    first = start_bytes // SECTOR_BYTES
    count = disk.stat().st_size // SECTOR_BYTES - first
    _write_mbr_table(disk, signature, _mbr_entry(_ACTIVE, _MBR_LINUX, first, count))


def write_gpt(disk: Path, disk_uuid: UUID, partitions: Sequence[Partition]) -> None:
    """Give `disk` a GPT with `partitions`, which must end before its last `GPT_TAIL_BYTES`."""
    sectors = disk.stat().st_size // SECTOR_BYTES
    table = b"".join(map(_gpt_entry, partitions)).ljust(_GPT_ENTRIES * _GPT_ENTRY_BYTES, b"\0")
    last = sectors - 1
    first_header = _gpt_header(disk_uuid, table, here=1, other=last, table_at=2, sectors=sectors)
    second_header = _gpt_header(
        disk_uuid, table, here=last, other=1, table_at=last - _GPT_TABLE_SECTORS, sectors=sectors
    )
    _write_mbr_table(disk, 0, _mbr_entry(0, _MBR_PROTECTIVE, 1, min(last, 0xFFFFFFFF)))
    with disk.open("r+b") as stream:
        stream.seek(SECTOR_BYTES)
        stream.write(first_header + table)
        stream.seek((last - _GPT_TABLE_SECTORS) * SECTOR_BYTES)
        stream.write(table + second_header)


def _write_mbr_table(disk: Path, signature: int, entry: bytes) -> None:
    with disk.open("r+b") as stream:
        stream.seek(_MBR_TABLE_AT)
        stream.write(struct.pack("<IH", signature, 0) + entry.ljust(64, b"\0") + b"\x55\xaa")


def _mbr_entry(flag: int, kind: int, first: int, count: int) -> bytes:
    return struct.pack("<B3sB3sII", flag, _NO_GEOMETRY, kind, _NO_GEOMETRY, first, count)


def _gpt_entry(partition: Partition) -> bytes:
    first = partition.start_bytes // SECTOR_BYTES
    last = (partition.start_bytes + partition.size_bytes) // SECTOR_BYTES - 1
    name = partition.name.encode("utf-16-le")
    return struct.pack("<16s16sQQQ72s", partition.kind.bytes_le, partition.uuid.bytes_le, first, last, 0, name)


def _gpt_header(disk_uuid: UUID, table: bytes, *, here: int, other: int, table_at: int, sectors: int) -> bytes:
    """Return one sector with the header that stands at sector `here` and whose copy stands at `other`."""
    first_usable = 2 + _GPT_TABLE_SECTORS
    last_usable = sectors - 2 - _GPT_TABLE_SECTORS
    places = (here, other, first_usable, last_usable, disk_uuid.bytes_le, table_at)

    def header(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x00010000, 92, checksum, 0, *places),
            *(_GPT_ENTRIES, _GPT_ENTRY_BYTES, zlib.crc32(table)),
        )

    return header(zlib.crc32(header(0))).ljust(SECTOR_BYTES, b"\0")
