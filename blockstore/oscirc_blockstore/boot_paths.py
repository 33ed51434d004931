"""Which files a boot usually reads, by path: a list of patterns, and where the files that they name stand on a disk.

Where no boot was recorded, the names of files still tell: a kernel, an initial RAM disk, `systemd`, its units and the
libraries that they need are read by every boot of a system that has them, wherever on the disk they stand.

A list is text, one pattern a line in the order of reading: `usr/lib/systemd/system/*.service`; `*` and `?` stand for
characters within one component. Behind it may stand, after white space, how much of such a file is read (`128K`) and
`newest`, which picks the last in the order of version numbers; `if` and the path of a program: such a file is read by
systems that run the program, after it. `#` begins a comment.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE, Ext4, Inode

MAX_FILES = 20_000
MAX_DIRECTORIES = 2_000
MAX_MATCHES = 100_000
WHOLE = 1 << 40
_KIB = 1024
_NUMBERS = re.compile(r"([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: components to match, bytes of such a file that are read, whether only the newest is meant.

    `program`: the path of what is run before; nothing for what is read in any case.
    """

    components: tuple[str, ...]
    head_bytes: int = WHOLE
    newest: bool = False
    program: str = ""


def parse(text: str) -> list[Pattern]:
    """The patterns of a list; raises `DocumentRefusedError` naming the line."""
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        head_bytes, newest, program = WHOLE, False, ""
        if words[-2:-1] == ["if"]:
            program = words.pop().strip("/")
            words.pop()
        for word in words[1:]:
            if word == "newest":
                newest = True
            elif word.endswith("K") and word[:-1].isascii() and word[:-1].isdecimal():
                head_bytes = int(word[:-1]) * _KIB
            else:
                raise DocumentRefusedError(f"line {number} of the list of boot paths says {word[:20]!r}")
        patterns.append(Pattern(tuple(words[0].strip("/").split("/")), head_bytes, newest, program))
    return patterns


@dataclass(slots=True)
class _Node:
    """A directory that patterns lead through: literal and wild names below, patterns that end with a name here."""

    literal: dict[str, _Node] = field(default_factory=dict)
    wild: dict[str, _Node] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    wild_ends: dict[str, int] = field(default_factory=dict)


def _tree(patterns: Sequence[Pattern]) -> _Node:
    root = _Node()
    for number, pattern in enumerate(patterns):
        node = root
        for component in pattern.components[:-1]:
            node = (node.wild if _is_wild(component) else node.literal).setdefault(component, _Node())
        last = pattern.components[-1]
        (node.wild_ends if _is_wild(last) else node.ends).setdefault(last, number)
    return root


def _is_wild(component: str) -> bool:
    return "*" in component or "?" in component


@dataclass(frozen=True, slots=True)
class _Match:
    pattern: int
    name: str
    inode: int


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of the disk that belong to a file which the pattern of that number names."""

    pattern: int
    range: ByteRange


def expand(
    file_system: Ext4, patterns: Sequence[Pattern], prepare: Callable[[Iterable[ByteRange]], None] = lambda _: None
) -> list[Place]:
    """Where the files stand that the patterns name, in the order of the patterns; ranges are absolute on the disk.

    `prepare` is told what will be read next, so that it can have all of it fetched at once. Bounded in directories
    and files; what is malformed below one directory ends only that. A file system without `usr` may be one that is
    mounted on `/boot`: the patterns below `boot/` are looked for at its root as well.
    """
    matches: list[_Match] = []
    frontier = [(_tree(patterns), ROOT_INODE)]
    if not _has_usr(file_system, prepare):
        frontier.append((frontier[0][0].literal.get("boot", _Node()), ROOT_INODE))
    directories = 0
    while frontier and directories < MAX_DIRECTORIES:
        prepare(_inode_places(file_system, (number for _, number in frontier)))
        found = [(node, directory) for node, number in frontier if (directory := _directory(file_system, number))]
        prepare([piece for _, directory in found for piece in _pieces(file_system, directory)])
        directories += len(found)
        frontier = []
        for node, directory in found:
            frontier += _look_into(file_system, node, directory, matches)
        if len(matches) > MAX_MATCHES:
            raise DocumentRefusedError("far more files than any system has match what boots read")
        del frontier[MAX_DIRECTORIES:]
    chosen = _chosen(matches, patterns)
    prepare(_inode_places(file_system, (match.inode for match in chosen)))
    return [
        Place(match.pattern, piece)
        for match in chosen
        for piece in _content(file_system, match.inode, patterns[match.pattern])
    ]


def _has_usr(file_system: Ext4, prepare: Callable[[Iterable[ByteRange]], None]) -> bool:
    prepare([file_system.inode_place(ROOT_INODE)])
    root = file_system.inode(ROOT_INODE)
    prepare(file_system.ranges(root))
    return "usr" in file_system.entries(root)


def _inode_places(file_system: Ext4, numbers: Iterable[int]) -> list[ByteRange]:
    places = []
    for number in numbers:
        with contextlib.suppress(DocumentRefusedError):
            places.append(file_system.inode_place(number))
    return places


def _pieces(file_system: Ext4, inode: Inode) -> list[ByteRange]:
    try:
        return file_system.ranges(inode)
    except DocumentRefusedError:
        return []


def _directory(file_system: Ext4, number: int) -> Inode | None:
    try:
        inode = file_system.inode(number)
    except DocumentRefusedError:
        return None
    return inode if inode.is_directory else None


def _look_into(file_system: Ext4, node: _Node, directory: Inode, matches: list[_Match]) -> list[tuple[_Node, int]]:
    """Note the files that match here; the directories to go on with."""
    try:
        entries = file_system.entries(directory)
    except DocumentRefusedError:
        return []
    further = [(below, entries[name]) for name, below in node.literal.items() if name in entries]
    for pattern, below in node.wild.items():
        further += [(below, inode) for name, inode in entries.items() if fnmatch.fnmatchcase(name, pattern)]
    for name, number in node.ends.items():
        if name in entries:
            matches.append(_Match(number, name, entries[name]))
    for pattern, number in node.wild_ends.items():
        matching = re.compile(fnmatch.translate(pattern)).match
        matches += [_Match(number, name, inode) for name, inode in entries.items() if matching(name)]
    return further


def _chosen(matches: list[_Match], patterns: Sequence[Pattern]) -> list[_Match]:
    """In the order of reading, each file once, the newest only where that is meant."""
    matches.sort(key=lambda match: (match.pattern, _natural(match.name)))
    chosen: dict[int, _Match] = {}
    for at, match in enumerate(matches):
        is_last = at + 1 == len(matches) or matches[at + 1].pattern != match.pattern
        if is_last or not patterns[match.pattern].newest:
            chosen.setdefault(match.inode, match)
    return list(chosen.values())[:MAX_FILES]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdecimal() else (-1, part) for part in _NUMBERS.split(name)]


def _content(file_system: Ext4, number: int, pattern: Pattern) -> list[ByteRange]:
    try:
        inode = file_system.inode(number)
    except DocumentRefusedError:
        return []
    pieces = _pieces(file_system, inode) if inode.is_regular else []
    left = min(inode.size, pattern.head_bytes)
    content = []
    for piece in pieces:
        if left <= 0:
            break
        content.append(ByteRange(piece.start, min(piece.stop, piece.start + left)))
        left -= piece.size
    return content
