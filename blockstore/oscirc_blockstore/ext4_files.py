"""Files of an ext4 file system that is not mounted: directories with their kinds, contents, inodes in a given place.

For whoever asks what is on a disk (`ext4` finds where things stand; the rules of that module hold here too: every
number is bounded, `DocumentRefusedError` for what cannot be). Paths are relative to the root and use `/`. Symbolic
links are not followed: what they lead to has a name of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import MAX_DIRECTORY_BYTES, MAX_STEPS, ROOT_INODE, Ext4, Inode, linear_entries
from oscirc_blockstore.partitions import Read
from oscirc_blockstore.range_set import RangeSet

MAX_CONTENT_BYTES = 4 << 20
_REGULAR, _DIRECTORY = 1, 2
_INCOMPATIBLE_AT = 96
_COMPRESSION, _RECOVER, _EXTENTS, _INLINE_DATA, _ENCRYPT = 0x1, 0x4, 0x40, 0x8000, 0x10000
_FILE_TYPES = 0x2
_LINKS_AT, _FIRST_INODE_AT = 26, 84


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory."""

    name: str
    inode: int
    is_directory: bool
    is_regular: bool


class Ext4Files:
    """The files of the file system in `partition`; raises `DocumentRefusedError` where there is none to be read."""

    def __init__(self, read: Read, partition: ByteRange, *, max_steps: int = MAX_STEPS) -> None:
        self.layout = Ext4(read, partition, max_steps=max_steps)
        self._read = read
        self._directories: dict[int, list[Entry]] = {}
        (incompatible,) = struct.unpack_from("<I", self.layout.superblock, _INCOMPATIBLE_AT)
        lacking = (_FILE_TYPES | _EXTENTS) & ~incompatible
        if incompatible & (_COMPRESSION | _INLINE_DATA | _ENCRYPT) or lacking:
            raise DocumentRefusedError("an ext4 file system with features that are not read here")
        self.needs_recovery = bool(incompatible & _RECOVER)
        """Whether its journal holds what its blocks do not: it was not unmounted."""

    def directory(self, inode: Inode) -> list[Entry]:
        """What is in a directory, without `.` and `..`; names that are no UTF-8 are given with escapes."""
        found = self._directories.get(inode.number)
        if found is None:
            found = self._directories[inode.number] = [
                entry for entry in self._entries(inode) if entry.name not in {".", ".."}
            ]
        return found

    def parent(self, directory: Inode) -> int | None:
        """The inode of the directory above, as `..` says; None where it does not say."""
        return next((entry.inode for entry in self._entries(directory) if entry.name == ".."), None)

    def find(self, path: str) -> Inode | None:
        """The inode of a path, or None."""
        inode = self.layout.inode(ROOT_INODE)
        for name in path.split("/"):
            if not inode.is_directory:
                return None
            number = next((entry.inode for entry in self.directory(inode) if entry.name == name), None)
            if number is None:
                return None
            inode = self.layout.inode(number)
        return inode

    def content(self, inode: Inode) -> bytes:
        """A file's bytes, its holes left out; refuses a file of more than 4 MiB."""
        if inode.size > MAX_CONTENT_BYTES:
            raise DocumentRefusedError(f"a file of {inode.size} bytes where a small one was expected")
        raw = b"".join(self._read(piece.start, piece.size) for piece in self._bounded(inode, MAX_CONTENT_BYTES))
        return raw[: inode.size]

    def inodes_in(self, places: RangeSet) -> Iterator[Inode]:
        """The inodes in use that stand, in part at least, in one of these places on the disk; some may come twice.

        Those of the file system itself (its journal, what it keeps to grow) are left out, but for the root.
        """
        size = self.layout.inode_size
        (first_of_files,) = struct.unpack_from("<I", self.layout.superblock, _FIRST_INODE_AT)
        for first, table in self._inode_tables():
            for place in places.within(table):
                index, last = (place.start - table.start) // size, (place.stop - 1 - table.start) // size
                raw = self._read(table.start + index * size, (last - index + 1) * size)
                self.layout.step(last - index + 1)
                for at in range(0, len(raw), size):
                    one, number = raw[at : at + size], first + index + at // size
                    is_used = struct.unpack_from("<H", one, _LINKS_AT)[0]
                    if is_used and (number >= first_of_files or number == ROOT_INODE):
                        yield self.layout.parse_inode(number, one)

    def _inode_tables(self) -> list[tuple[int, ByteRange]]:
        """The number of the first inode in each group's table, and the part of the table that was ever used."""
        size, per_group = self.layout.inode_size, self.layout.inodes_per_group
        return [
            (1 + number * per_group, ByteRange(group.inode_table, group.inode_table + group.used_inodes * size))
            for number, group in enumerate(self.layout.groups())
        ]

    def _entries(self, inode: Inode) -> Iterator[Entry]:
        for piece in self._bounded(inode, MAX_DIRECTORY_BYTES):
            raw = self._read(piece.start, piece.size)
            for at in range(0, len(raw), self.layout.block_size):
                found = list(_parse(raw[at : at + self.layout.block_size]))
                self.layout.step(1 + len(found))
                yield from found

    def _bounded(self, inode: Inode, limit_bytes: int) -> list[ByteRange]:
        if inode.size and not inode.extents_root:
            raise DocumentRefusedError("a directory or file that is not made of extents")
        pieces = self.layout.ranges(inode)
        if sum(piece.size for piece in pieces) > limit_bytes:
            raise DocumentRefusedError("a directory or file that is larger than can be")
        return pieces


def _parse(raw: bytes) -> Iterator[Entry]:
    for name, inode, kind in linear_entries(raw):
        if inode and name:
            yield Entry(name.decode(errors="backslashreplace"), inode, kind == _DIRECTORY, kind == _REGULAR)
