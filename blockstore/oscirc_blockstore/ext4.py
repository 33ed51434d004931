"""Reads an ext4 file system without mounting it: where its metadata stands, its directories, where files stand.

For two uses: to guess what a guest will read next, and to say which files differ between two versions. Layout: the
Linux kernel's documentation, Documentation/filesystems/ext4. All numbers are little-endian.

Rules:

1. The file system is somebody else's: every number is bounded before it is used, every loop ends, and what cannot be
   right raises `DocumentRefusedError`. So does a file system whose extents and directory entries take more than
   `max_steps` to look at, in all: trees may lead in circles. Checksums are not compared: the bytes are signed.
2. Read-only, and from `read` alone: offset and size on the disk, absolute; it raises what it likes.
3. Files that are not made of extents (inline data, the block maps of ext3) have no ranges here.
"""

from __future__ import annotations

import contextlib
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.partitions import Read

ROOT_INODE = 2
MAX_GROUPS = 1 << 17  # 16 TiB of usual groups: each costs memory where it is looked at
MAX_EXTENTS = 100_000
MAX_DIRECTORY_BYTES = 16 << 20
MAX_STEPS = 2_000_000
_SUPERBLOCK_AT, _SUPERBLOCK_BYTES = 1024, 1024
_MAGIC = 0xEF53
_EXTENTS_MAGIC, _EXTENTS_DEPTH = 0xF30A, 5
_INCOMPAT_64BIT, _INCOMPAT_META_BG = 0x80, 0x10
_INODE_UNINITIALISED, _BLOCKS_UNINITIALISED = 0x1, 0x2
_FLAG_EXTENTS = 0x80000
_UNWRITTEN = 32768  # an extent's length above this: reserved, reads as zeros
_INODE_BYTES = 128
_DESCRIPTOR_BYTES, _MOST_DESCRIPTOR_BYTES = 32, 1024
_MOST_LOG_BLOCK = 6  # 64 KiB
_ENTRY_BYTES = 8  # of a directory, before the name
_CHECKSUM_ENTRY = 0xDE


@dataclass(frozen=True, slots=True)
class Group:
    """One block group: where its bitmaps and its inode table begin (absolute bytes), how many inodes were ever used."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    used_inodes: int
    is_uninitialised: bool = False
    """Whether its block bitmap says nothing: no block in it was ever given to a file."""


@dataclass(frozen=True, slots=True)
class Inode:
    """One inode: mode, size in bytes, and its raw 60 bytes of extents."""

    number: int
    mode: int
    size: int
    extents_root: bytes

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a file with content."""
        return stat.S_ISREG(self.mode)


class Ext4:
    """The file system that begins at byte `start` of a disk; raises `DocumentRefusedError` where there is none."""

    def __init__(self, read: Read, partition: ByteRange, *, max_steps: int = MAX_STEPS) -> None:
        self._read_disk = read
        self._steps_left = max_steps
        self._partition = partition
        raw = self.superblock = self._read(_SUPERBLOCK_AT, _SUPERBLOCK_BYTES)
        inodes, blocks_low, first_block, log_block = (struct.unpack_from("<I", raw, at)[0] for at in (0, 4, 20, 24))
        blocks_per_group, inodes_per_group = (struct.unpack_from("<I", raw, at)[0] for at in (32, 40))
        magic, inode_size, descriptor_size = (struct.unpack_from("<H", raw, at)[0] for at in (56, 88, 254))
        (incompatible,) = struct.unpack_from("<I", raw, 96)
        is_64bit = bool(incompatible & _INCOMPAT_64BIT)
        blocks = blocks_low | (struct.unpack_from("<I", raw, 336)[0] << 32 if is_64bit else 0)
        if magic != _MAGIC or log_block > _MOST_LOG_BLOCK or incompatible & _INCOMPAT_META_BG:
            raise DocumentRefusedError("no ext4 file system that can be read")
        self.block_size = 1024 << log_block
        self.inode_size = inode_size
        self.inodes_per_group = inodes_per_group
        self.inode_count = inodes
        descriptor_size = descriptor_size if is_64bit else _DESCRIPTOR_BYTES
        groups = -(-blocks // blocks_per_group) if blocks_per_group else 0
        sound = (
            0 < groups <= MAX_GROUPS
            and blocks * self.block_size <= partition.size
            and 0 < inodes_per_group <= 8 * self.block_size
            and _INODE_BYTES <= inode_size <= self.block_size
            and _DESCRIPTOR_BYTES <= descriptor_size <= _MOST_DESCRIPTOR_BYTES
        )
        if not sound:
            raise DocumentRefusedError("an ext4 superblock whose numbers cannot be")
        self._descriptors = ByteRange(
            (first_block + 1) * self.block_size, (first_block + 1) * self.block_size + groups * descriptor_size
        )
        self._descriptor_size = descriptor_size
        self._groups: list[Group] | None = None

    @property
    def descriptors(self) -> ByteRange:
        """Where the group descriptors stand: absolute bytes."""
        start = self._partition.start
        return ByteRange(start + self._descriptors.start, start + self._descriptors.stop)

    def groups(self) -> list[Group]:
        """The block groups, in order."""
        if self._groups is None:
            raw = self._read(self._descriptors.start, self._descriptors.size)
            self._groups = [
                self._group(raw[at : at + self._descriptor_size]) for at in range(0, len(raw), self._descriptor_size)
            ]
        return self._groups

    def _group(self, raw: bytes) -> Group:
        lows = struct.unpack_from("<III", raw, 0)
        highs = struct.unpack_from("<III", raw, 32) if len(raw) >= 64 else (0, 0, 0)  # noqa: PLR2004  # 64bit
        flags, unused = struct.unpack_from("<H", raw, 18)[0], struct.unpack_from("<H", raw, 28)[0]
        used = 0 if flags & _INODE_UNINITIALISED else max(0, self.inodes_per_group - unused)
        places = [self._partition.start + self._block(low | high << 32) for low, high in zip(lows, highs, strict=True)]
        return Group(places[0], places[1], places[2], used, bool(flags & _BLOCKS_UNINITIALISED))

    def inode_tables(self) -> Iterator[ByteRange]:
        """The parts of the inode tables that were ever used: absolute bytes."""
        for group in self.groups():
            if group.used_inodes:
                yield ByteRange(group.inode_table, group.inode_table + group.used_inodes * self.inode_size)

    def inode_place(self, number: int) -> ByteRange:
        """Where an inode stands: absolute bytes."""
        group, index = divmod(number - 1, self.inodes_per_group)
        if not 0 <= group < len(self.groups()):
            raise DocumentRefusedError(f"there is no inode {number}")
        start = self.groups()[group].inode_table + index * self.inode_size
        return ByteRange(start, start + self.inode_size)

    def inode(self, number: int) -> Inode:
        """An inode by its number."""
        place = self.inode_place(number)
        return self.parse_inode(number, self._read(place.start - self._partition.start, _INODE_BYTES))

    def parse_inode(self, number: int, raw: bytes) -> Inode:
        """The inode of that number in its bytes, at least the first 128 of them."""
        (mode,), (low,), (high,) = (
            struct.unpack_from("<H", raw, 0),
            struct.unpack_from("<I", raw, 4),
            struct.unpack_from("<I", raw, 108),
        )
        flags = struct.unpack_from("<I", raw, 32)[0]
        return Inode(number, mode, low | high << 32, raw[40:100] if flags & _FLAG_EXTENTS else b"")

    def ranges(self, inode: Inode, *, unwritten: bool = False) -> list[ByteRange]:
        """Where a file's content stands: absolute bytes, in the order of the file; holes are left out.

        With `unwritten` instead the places that are a file's and read as zeros, whatever stands there.
        """
        found: list[ByteRange] = []
        if inode.extents_root:
            self._extents(inode.extents_root, _EXTENTS_DEPTH, found, unwritten=unwritten)
        return found

    def _extents(self, raw: bytes, depth_left: int, found: list[ByteRange], *, unwritten: bool) -> None:
        magic, count, _, depth = struct.unpack_from("<HHHH", raw, 0)
        if magic != _EXTENTS_MAGIC or 12 + 12 * count > len(raw) or depth > depth_left:
            raise DocumentRefusedError("an extent tree that cannot be")
        self.step(1 + count)
        for at in range(12, 12 + 12 * count, 12):
            if len(found) >= MAX_EXTENTS:
                raise DocumentRefusedError("a file in too many pieces")
            if depth:
                _, low, high = struct.unpack_from("<IIH", raw, at)
                place = self._block(low | high << 32)
                self._extents(self._read(place, self.block_size), depth - 1, found, unwritten=unwritten)
                continue
            _, length, high, low = struct.unpack_from("<IHHI", raw, at)
            if (length > _UNWRITTEN) != unwritten:
                continue
            length -= _UNWRITTEN if unwritten else 0
            start = self._partition.start + self._block(low | high << 32)
            stop = start + length * self.block_size
            if stop > self._partition.stop:
                raise DocumentRefusedError("a file that reaches beyond the partition")
            found.append(ByteRange(start, stop))

    def entries(self, directory: Inode) -> dict[str, int]:
        """Names and inode numbers in a directory, without `.` and `..`; names that are no UTF-8 are left out."""
        found: dict[str, int] = {}
        left = MAX_DIRECTORY_BYTES
        for piece in self.ranges(directory):
            left -= piece.size
            if left < 0:
                raise DocumentRefusedError("a directory that is too large")
            raw = self._read(piece.start - self._partition.start, piece.size)
            for at in range(0, len(raw), self.block_size):
                self.step(1 + _parse_directory_block(raw[at : at + self.block_size], found))
        return found

    def step(self, count: int) -> None:
        """Count what was looked at; raises `DocumentRefusedError` when it becomes too much."""
        self._steps_left -= count
        if self._steps_left < 0:
            raise DocumentRefusedError("a file system that takes too long to look at")

    def _block(self, number: int) -> int:
        """Bytes from the partition's start; bounded."""
        place: int = number * self.block_size
        if place >= self._partition.size:
            raise DocumentRefusedError("a block number beyond the partition")
        return place

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._partition.size:
            raise DocumentRefusedError("the file system reaches beyond its partition")
        raw = self._read_disk(self._partition.start + offset, size)
        if len(raw) != size:
            raise DocumentRefusedError("the disk ends in the file system")
        return raw


def linear_entries(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The entries of a directory's block, or of inline data: name, inode, kind of file; unused ones have inode 0.

    Blocks of a hashed index look like one empty entry. What stands behind an entry that cannot be is left out.
    """
    at = 0
    while at + _ENTRY_BYTES <= len(raw):
        inode, length, name_length, kind = struct.unpack_from("<IHBB", raw, at)
        if length < _ENTRY_BYTES + name_length or at + length > len(raw):
            return
        is_checksum = kind == _CHECKSUM_ENTRY
        yield raw[at + _ENTRY_BYTES : at + _ENTRY_BYTES + name_length], 0 if is_checksum else inode, kind
        at += length


def _parse_directory_block(raw: bytes, found: dict[str, int]) -> int:
    """How many entries there are."""
    count = 0
    for name, inode, _ in linear_entries(raw):
        count += 1
        if inode and name not in {b".", b".."}:
            with contextlib.suppress(UnicodeDecodeError):
                found[name.decode()] = inode
    return count
