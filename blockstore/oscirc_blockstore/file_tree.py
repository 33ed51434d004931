"""The files of an ext4 file system by path, and which of them differ between two versions of it.

An inode says what a file is, how long, when it was last written and where it stands, so contents need not be read: a
file changed when its size or time of modification did, or where a link leads. One that agrees in these and stands
elsewhere was written anew as it was: that moves blocks, and is told apart. What was written in place without a new
time of modification is not seen. Directories differ in owner and mode only: what is in them is told by itself.

The file system is a publisher's. Beside the rules of `ext4`: a directory is gone through once, by whatever names it
is reached; entries, characters of their paths and the length of each path are bounded; what cannot be raises
`DocumentRefusedError`. Inline data is read: names may stand in an inode and its attributes. Encrypted names stay so.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import MAX_DIRECTORY_BYTES, ROOT_INODE, Ext4, linear_entries
from oscirc_blockstore.partitions import Read

MAX_STEPS = 5_000_000
MAX_ENTRIES = 500_000
MAX_PIECES = 1_000_000  # of all directories together
MAX_PATH_CHARS = 4096
MAX_ALL_PATH_CHARS = 128 << 20
_READ_AT_ONCE_BYTES = 1 << 20  # of a table of inodes, which may be said to have gigabytes
_FLAGS_AT, _LINKS_AT, _BLOCK_AT, _BLOCK_STOP = 32, 26, 40, 100
_INLINE_DATA, _EXTENTS = 0x10000000, 0x80000
_GUARDED = 0x30  # immutable, append-only
_NANOSECONDS_AT, _GENERATION_STOP = 136, 104  # of the time of modification; the generation follows the extents
_CLASSIC_INODE_BYTES = 128
_ATTRIBUTES_MAGIC = 0xEA020000
_ATTRIBUTE_ENTRY = struct.Struct("<BBHIII")
_SYSTEM_INDEX, _DATA_NAME = 7, b"data"

Prepare = Callable[[Iterable[ByteRange]], None]
"""Told what will be read next, so that all of it can be fetched at once."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What an inode says: kind, size in bytes, what identifies its content, where that stands, its owner and mode."""

    inode: int
    kind: str
    size: int
    content: bytes
    place: bytes
    attributes: bytes


@dataclass(frozen=True, slots=True)
class FileChange:
    """`kind` is added, removed, changed, renamed, rewritten (as it was, elsewhere) or attributes.

    `source` is the path of what was renamed.
    """

    kind: str
    path: str
    what: str
    old_size: int
    new_size: int
    source: str = ""

    @property
    def size(self) -> int:
        """By which changes are ranked: what is there now, or was."""
        return self.new_size or self.old_size


class FileTree:
    """Reads names and inodes of one file system; `read` is absolute on the disk, as the file system's own."""

    def __init__(self, file_system: Ext4, read: Read) -> None:
        self._layout = file_system
        self._read = read
        self._pieces_left = MAX_PIECES

    def directory_ranges(self) -> Iterator[ByteRange]:
        """Where the contents of all directories stand, by the inode tables alone: what `walk` will read."""
        size = self._layout.inode_size
        step = max(1, _READ_AT_ONCE_BYTES // size) * size
        for group in self._layout.groups():
            self._layout.step(group.used_inodes)
            table_bytes = group.used_inodes * size
            for first in range(0, table_bytes, step):
                raw = self._read(group.inode_table + first, min(step, table_bytes - first))
                for at in range(0, len(raw) - size + 1, size):
                    mode, links = struct.unpack_from("<H", raw, at)[0], struct.unpack_from("<H", raw, at + _LINKS_AT)[0]
                    if links and stat.S_ISDIR(mode):
                        yield from self._pieces(raw[at : at + size])

    def walk(self, prepare: Prepare = lambda _: None) -> dict[str, FileFacts]:
        """Every path below the root, which is "", with what its inode says; level by level."""
        found: dict[str, FileFacts] = {}
        seen, frontier, characters = {ROOT_INODE}, [("", self._inode(ROOT_INODE))], 0
        while frontier:
            prepare([piece for _, raw in frontier for piece in self._pieces(raw)])
            below: list[tuple[str, bytes]] = []
            for path, directory in frontier:
                for name, number in self._names(directory):
                    place = f"{path}/{name}"
                    characters += len(place)
                    if len(found) >= MAX_ENTRIES or characters > MAX_ALL_PATH_CHARS:
                        raise DocumentRefusedError("a file system of more files than can be compared")
                    raw = self._inode(number)
                    found[place] = facts = _facts(number, raw)
                    if facts.kind == "directory" and number not in seen and len(place) <= MAX_PATH_CHARS:
                        seen.add(number)
                        below.append((place, raw))
            frontier = below
        return found

    def find(self, path: str, prepare: Prepare = lambda _: None) -> bytes | None:
        """The raw inode of a file by its path from the root, symbolic links not followed; None where there is none."""
        raw = self._inode(ROOT_INODE)
        for name in path.split("/"):
            if not stat.S_ISDIR(struct.unpack_from("<H", raw, 0)[0]):
                return None
            prepare(self._pieces(raw))
            number = next((number for each, number in self._names(raw) if each == name), None)
            if number is None:
                return None
            raw = self._inode(number)
        return raw

    def content_ranges(self, raw: bytes, most: int) -> list[ByteRange]:
        """Where a regular file's content stands; `DocumentRefusedError` for more than `most` bytes."""
        pieces = self._pieces(raw)
        if _size(raw) > most or sum(piece.size for piece in pieces) > most + self._layout.block_size:
            raise DocumentRefusedError(f"a file of {_size(raw)} bytes where a small one was expected")
        return pieces

    def content(self, raw: bytes, most: int) -> bytes | None:
        """A regular file's bytes, its holes left out; None for what is none."""
        if not stat.S_ISREG(struct.unpack_from("<H", raw, 0)[0]):
            return None
        pieces = self.content_ranges(raw, most)
        if _is_inline(raw):
            return (raw[_BLOCK_AT:_BLOCK_STOP] + _inline_rest(raw))[: _size(raw)]
        return b"".join(self._read(piece.start, piece.size) for piece in pieces)[: _size(raw)]

    def _inode(self, number: int) -> bytes:
        place = self._layout.inode_place(number)
        self._layout.step(1)
        raw = self._read(place.start, place.size)
        if len(raw) != place.size:
            raise DocumentRefusedError("the disk ends in the file system")
        return raw

    def _pieces(self, raw: bytes) -> list[ByteRange]:
        """Where what is in a file or directory stands; refuses what is kept as ext2 and ext3 do: it is not empty."""
        if _is_inline(raw):
            return []
        if _size(raw) and not struct.unpack_from("<I", raw, _FLAGS_AT)[0] & _EXTENTS:
            raise DocumentRefusedError("files as ext2 and ext3 keep them are not read here")
        pieces = self._layout.ranges(self._layout.parse_inode(0, raw))
        self._pieces_left -= len(pieces)
        if self._pieces_left < 0:
            raise DocumentRefusedError("directories in too many pieces")
        return pieces

    def _names(self, raw: bytes) -> Iterator[tuple[str, int]]:
        if _is_inline(raw):
            yield from _parse(raw[_BLOCK_AT + 4 : _BLOCK_STOP])  # the first four bytes are the parent
            yield from _parse(_inline_rest(raw))
            return
        left = MAX_DIRECTORY_BYTES
        for piece in self._pieces(raw):
            left -= piece.size
            if left < 0:
                raise DocumentRefusedError("a directory that is too large")
            content = self._read(piece.start, piece.size)
            for at in range(0, len(content), self._layout.block_size):
                found = _parse(content[at : at + self._layout.block_size])
                self._layout.step(1 + len(found))
                yield from found


@dataclass(slots=True)
class _Pairs:
    """Paths that only one version has, to find those that were renamed."""

    added: list[str] = field(default_factory=list)
    removed: dict[bytes, list[str]] = field(default_factory=dict)


def compare(old: Mapping[str, FileFacts], new: Mapping[str, FileFacts]) -> list[FileChange]:
    """What differs by path, the largest first. A file that stands where one did under another name was renamed."""
    changes: list[FileChange] = []
    pairs = _Pairs()
    for path, facts in new.items():
        before = old.get(path)
        if before is None:
            pairs.added.append(path)
        elif before.kind != facts.kind or before.content != facts.content:
            changes.append(FileChange("changed", path, facts.kind, before.size, facts.size))
        elif before.place != facts.place:
            changes.append(FileChange("rewritten", path, facts.kind, before.size, facts.size))
        elif before.attributes != facts.attributes:
            changes.append(FileChange("attributes", path, facts.kind, before.size, facts.size))
    for path, facts in old.items():
        if path not in new:
            pairs.removed.setdefault(facts.content + facts.place, []).append(path)
    for path in pairs.added:
        facts = new[path]
        sources = pairs.removed.get(facts.content + facts.place, []) if facts.kind == "file" and facts.size else []
        if sources:
            source = sources.pop(0)
            changes.append(FileChange("renamed", path, facts.kind, old[source].size, facts.size, source))
        else:
            changes.append(FileChange("added", path, facts.kind, 0, facts.size))
    gone = (path for paths in pairs.removed.values() for path in paths)
    changes += [FileChange("removed", path, old[path].kind, old[path].size, 0) for path in gone]
    return sorted(changes, key=lambda change: (-change.size, change.path))


def _facts(number: int, raw: bytes) -> FileFacts:
    mode, uid, _, _, _, mtime = struct.unpack_from("<HHIIII", raw, 0)
    flags, (gid,) = struct.unpack_from("<I", raw, _FLAGS_AT)[0], struct.unpack_from("<H", raw, 24)
    kind = (
        "directory"
        if stat.S_ISDIR(mode)
        else "file"
        if stat.S_ISREG(mode)
        else "symlink"
        if stat.S_ISLNK(mode)
        else "special"
    )
    if kind == "directory":
        content = place = b""
    else:
        nanoseconds = raw[_NANOSECONDS_AT : _NANOSECONDS_AT + 4] if len(raw) > _CLASSIC_INODE_BYTES else b""
        content, place = struct.pack("<QI", _size(raw), mtime) + nanoseconds, raw[_BLOCK_AT:_GENERATION_STOP]
        if not flags & _EXTENTS:  # a short link's target, a device's numbers, inline data: content itself
            content, place = content + raw[_BLOCK_AT:_BLOCK_STOP], b""
    attributes = struct.pack("<HHHI", mode, uid, gid, flags & _GUARDED)
    size = _size(raw) if kind in {"file", "symlink"} else 0
    return FileFacts(number, kind, size, content, place, attributes)


def _size(raw: bytes) -> int:
    (low,), (high,) = struct.unpack_from("<I", raw, 4), struct.unpack_from("<I", raw, 108)
    return int(low | high << 32)


def _is_inline(raw: bytes) -> bool:
    return bool(struct.unpack_from("<I", raw, _FLAGS_AT)[0] & _INLINE_DATA)


def _inline_rest(raw: bytes) -> bytes:
    """What of inline data stands behind the inode's 60 bytes, in the attribute `system.data`."""
    if len(raw) < _CLASSIC_INODE_BYTES + 4:
        return b""
    first = _CLASSIC_INODE_BYTES + struct.unpack_from("<H", raw, _CLASSIC_INODE_BYTES)[0] + 4
    if first > len(raw) or struct.unpack_from("<I", raw, first - 4)[0] != _ATTRIBUTES_MAGIC:
        return b""
    at = first
    while at + _ATTRIBUTE_ENTRY.size <= len(raw) and raw[at : at + 4] != bytes(4):
        name_length, index, offset, _, size, _ = _ATTRIBUTE_ENTRY.unpack_from(raw, at)
        name = raw[at + _ATTRIBUTE_ENTRY.size : at + _ATTRIBUTE_ENTRY.size + name_length]
        if index == _SYSTEM_INDEX and name == _DATA_NAME and first + offset + size <= len(raw):
            return raw[first + offset : first + offset + size]
        at += _ATTRIBUTE_ENTRY.size + (name_length + 3 & ~3)
    return b""


def _parse(raw: bytes) -> Sequence[tuple[str, int]]:
    """Names and inodes without `.` and `..`; names that are no UTF-8 with escapes."""
    return [
        (name.decode(errors="backslashreplace"), inode)
        for name, inode, _ in linear_entries(raw)
        if inode and name and name not in {b".", b".."}
    ]
