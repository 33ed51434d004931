"""Finds on a changed disk what should not be published: one machine's own, or one person's.

Looked at are the files that differ from the base: their names (`private_paths`), the accounts in `/etc/passwd` and
`/etc/shadow`, and, wherever they stand, contents that begin a private key or are swap. What is as in the base is
public already.

Rules:

1. Nothing is mounted and nothing is run; ext4 is read (`ext4_files`), and every loop there is bounded.
2. What cannot be looked at is a find too: a changed partition that is no ext4, a file system that breaks off, one
   whose journal was not replayed, what no partition holds (a partition that was deleted leaves its content). Silence
   would be taken for "nothing there".
3. Of contents only what was changed is read. Packages bring keys for their tests along: below `/usr`, but for
   `/usr/local`, contents are not judged.
4. Deleted files and whatever else no name leads to are not found here; `cleaning` zeroes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import ROOT_INODE, Inode
from oscirc_blockstore.ext4_files import Ext4Files
from oscirc_blockstore.partitions import SECTOR_BYTES, find_partitions
from oscirc_blockstore.range_set import RangeSet
from oscirc_publisher import private_paths
from oscirc_publisher.private_paths import Pattern

ACCOUNT, UNKNOWN, BOOT_FILES = "account", "not looked at", "boot files"
PASSWD, SHADOW = "etc/passwd", "etc/shadow"
_KEY_IN_TEXT = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\r?\n(?:[A-Za-z-]+: [^\n]*\n|\r?\n)*[A-Za-z0-9+/]{32}"
)
_PIECE_BYTES, _OVERLAP_BYTES = 1 << 20, 512
_MAX_DEPTH = 32
_COMPARED_BYTES = 1 << 20
_MAX_HOMES = 256
MAX_STEPS = 10_000_000  # some ten seconds
_PAGE_BYTES, _SWAP_MAGIC = 4096, b"SWAPSPACE2"  # which ends the first page
_FAT_AT = (54, 82)
_SMALL_FAT_CHANGE_BYTES = 1 << 20
_FIRST_PERSON = 1000
_BOOT_AREA_BYTES, _TABLE_COPY_BYTES = 1 << 20, 33 * SECTOR_BYTES
_NOT_FOLLOWED = "kept as ext3 keeps files, which is not read here"


class Remedy(Enum):
    """What `cleaning` does about a find."""

    EMPTIED = "emptied"
    PASSWORD = "made that of the base, or locked"  # noqa: S105  # words, not a secret
    ZEROED = "zeroed"
    STAYS = "stays"
    NONE = "cannot be cleaned"


@dataclass(frozen=True, slots=True)
class Find:
    """One thing that should not be public: what kind, where (absolute path, or partition), in words, its bytes."""

    kind: str
    where: str
    words: str
    size: int
    remedy: Remedy
    partition: ByteRange
    inode: int = 0


def look(disk: ChangedDisk) -> list[Find]:
    """What should not be public, by partition, then accounts, paths, contents."""
    changed = RangeSet(disk.changed())
    found: list[Find] = []
    partitions = find_partitions(disk.read, disk.size)
    for number, partition in enumerate(partitions, start=1):
        if changed.touches(partition):
            found += _PartitionLook(disk, changed, partition, f"partition {number}").finds()
    for gap in _gaps(partitions, disk.size):
        size = sum(part.size for part in changed.within(gap) if _differs(disk, part))
        if size:
            words = "changed, and no partition that is known holds it"
            found.append(Find(UNKNOWN, f"byte {gap.start} to {gap.stop}", words, size, Remedy.NONE, gap))
    return found


def _gaps(partitions: Sequence[ByteRange], disk_size: int) -> Iterator[ByteRange]:
    """What is in no partition, without where tables and boot loaders stand: at the disk's ends."""
    at = _BOOT_AREA_BYTES
    for partition in sorted(partitions, key=lambda place: place.start):
        if at < partition.start:
            yield ByteRange(at, partition.start)
        at = max(at, partition.stop)
    if at < disk_size - _TABLE_COPY_BYTES:
        yield ByteRange(at, disk_size - _TABLE_COPY_BYTES)


def _differs(disk: ChangedDisk, part: ByteRange) -> bool:
    """Whether these bytes are not the base's; of many that is taken for granted."""
    large = part.size > _COMPARED_BYTES
    return large or disk.read(part.start, part.size) != disk.read_base(part.start, part.size)


class _PartitionLook:
    """One partition that was changed."""

    def __init__(self, disk: ChangedDisk, changed: RangeSet, partition: ByteRange, name: str) -> None:
        self._disk, self._changed, self._partition, self._name = disk, changed, partition, name
        self._found: dict[int, Find] = {}

    def finds(self) -> list[Find]:
        try:
            files = Ext4Files(self._disk.read, self._partition, max_steps=MAX_STEPS)
        except DocumentRefusedError as error:
            return [self._other(error)]
        found: list[Find] = []
        if files.needs_recovery:
            words = "its file system was not unmounted: what its journal holds was not looked at"
            found.append(self._find(UNKNOWN, self._name, words, 0, Remedy.NONE))
        try:
            homes: list[str] = []
            found += self._accounts(files, homes)
            root = files.layout.inode(ROOT_INODE)
            for each in self._walk(files, root, "", private_paths.patterns(homes[:_MAX_HOMES]), 0):
                self._found.setdefault(each.inode, each)
            self._keys(files)
        except DocumentRefusedError as error:
            words = f"its file system could not be looked at whole: {error}"
            found.append(self._find(UNKNOWN, self._name, words, 0, Remedy.NONE))
        return found + list(self._found.values())

    def _other(self, error: DocumentRefusedError) -> Find:
        """What there is to say of a partition without a file system that is read here."""
        head = self._disk.read(self._partition.start, min(_PAGE_BYTES, self._partition.size))
        size = sum(part.size for part in self._changed.within(self._partition))
        if head.endswith(_SWAP_MAGIC):
            return self._find(
                private_paths.MEMORY, self._name, "swap, which holds parts of memory", size, Remedy.ZEROED
            )
        if any(head[at : at + 3] == b"FAT" for at in _FAT_AT) and size <= _SMALL_FAT_CHANGE_BYTES:
            return self._find(
                BOOT_FILES, self._name, "changed a little; its file names were not read", size, Remedy.STAYS
            )
        return self._find(UNKNOWN, self._name, f"changed, and cannot be looked into: {error}", size, Remedy.NONE)

    def _find(self, kind: str, where: str, words: str, size: int, remedy: Remedy, inode: int = 0) -> Find:
        return Find(kind, where, words, size, remedy, self._partition, inode)

    def _is_changed(self, files: Ext4Files, inode: Inode) -> bool:
        """Whether a file's bytes are not the base's; of a large one, whether any of its blocks was written."""
        if not inode.size:
            return False
        parts = [part for piece in files.layout.ranges(inode) for part in self._changed.within(piece)]
        if inode.size > _COMPARED_BYTES:
            return bool(parts)
        return any(_differs(self._disk, part) for part in parts)

    def _is_swap(self, files: Ext4Files, inode: Inode) -> bool:
        """Whether a file is used as swap: its first page says how, and is needed."""
        if inode.size <= _PAGE_BYTES:
            return False
        first = files.layout.ranges(inode)[0]
        return first.size >= _PAGE_BYTES and self._disk.read(first.start, _PAGE_BYTES).endswith(_SWAP_MAGIC)

    def _accounts(self, files: Ext4Files, homes: list[str]) -> Iterator[Find]:
        """People and passwords that the base does not have; gathers the homes that accounts name."""
        passwd, shadow = files.find(PASSWD), files.find(SHADOW)
        people = lines_of(files, passwd)
        homes += [fields[5] for fields in people.values() if len(fields) > 5]  # noqa: PLR2004  # passwd(5)
        changed = [one is not None and one.is_regular and self._is_changed(files, one) for one in (passwd, shadow)]
        if not any(changed):
            return
        old_people, old_secrets = base_lines(self._disk, self._partition)
        for name, fields in people.items():
            if name not in old_people and is_person(fields):
                yield self._find(ACCOUNT, f"/{PASSWD}", f"the account {name} was added", 0, Remedy.STAYS)
        for name, fields in lines_of(files, shadow).items():
            if is_open(fields) and fields[1:2] != old_secrets.get(name, [])[1:2]:
                words = f"the password of {name} was set" if fields[1] else f"{name} needs no password"
                yield self._find(private_paths.PASSWORD, f"/{SHADOW}", words, 0, Remedy.PASSWORD)

    def _walk(
        self, files: Ext4Files, directory: Inode, path: str, patterns: Sequence[Pattern], depth: int
    ) -> Iterator[Find]:
        """The changed files that the patterns lead to."""
        if not directory.is_directory:
            return
        if depth > _MAX_DEPTH:
            raise DocumentRefusedError("directories are nested too deep")
        for entry in files.directory(directory):
            left = [rest for pattern in patterns for rest in pattern.below(entry.name)]
            place = f"{path}/{entry.name}"
            kinds = [rest.kind for rest in left if not rest.components]
            if entry.is_regular and kinds:
                inode = files.layout.inode(entry.inode)
                if inode.is_regular and self._is_changed(files, inode):
                    remedy = Remedy.ZEROED if self._is_swap(files, inode) else Remedy.EMPTIED
                    yield self._find(kinds[0], place, "", inode.size, remedy, inode.number)
                elif inode.is_regular and not is_followed(inode):
                    yield self._find(kinds[0], place, _NOT_FOLLOWED, inode.size, Remedy.NONE, inode.number)
            deeper = [rest for rest in left if rest.components]
            if entry.is_directory and deeper:
                yield from self._walk(files, files.layout.inode(entry.inode), place, deeper, depth + 1)

    def _keys(self, files: Ext4Files) -> None:
        """Private keys and swap by content, in what was changed of any file."""
        marked: list[tuple[Inode, tuple[str, str, Remedy]]] = []
        directories: list[Inode] = []
        for inode in files.inodes_in(self._changed):
            if inode.is_directory:
                directories.append(inode)
            elif inode.is_regular and not is_followed(inode):
                where = f"inode {inode.number} in {self._name}"
                find = self._find(UNKNOWN, where, _NOT_FOLLOWED, inode.size, Remedy.NONE, inode.number)
                self._found.setdefault(inode.number, find)
            elif inode.is_regular and inode.number not in self._found:
                mark = self._mark(files, inode)
                marked += [] if mark is None else [(inode, mark)]
        if not marked:
            return
        names = _names(files, {inode.number for inode, _ in marked}, directories)
        for inode, (kind, words, remedy) in marked:
            where = names.get(inode.number, f"inode {inode.number} in {self._name}")
            if kind == private_paths.KEY and where.startswith("/usr/") and not where.startswith("/usr/local/"):
                continue
            self._found[inode.number] = self._find(kind, where, words, inode.size, remedy, inode.number)

    def _mark(self, files: Ext4Files, inode: Inode) -> tuple[str, str, Remedy] | None:
        """What a file's changed content shows it to be: kind, words, remedy."""
        if self._holds_key(files, inode) and self._is_changed(files, inode):
            return private_paths.KEY, "a private key is in it", Remedy.EMPTIED
        if self._became_swap(files, inode):
            return private_paths.MEMORY, "swap, which holds parts of memory", Remedy.ZEROED
        return None

    def _became_swap(self, files: Ext4Files, inode: Inode) -> bool:
        """Whether a file was made swap since: its first page, which says so, was written."""
        try:
            pieces = files.layout.ranges(inode)
        except DocumentRefusedError:
            return False
        first = ByteRange(pieces[0].start, pieces[0].start + _PAGE_BYTES) if pieces else None
        return first is not None and self._changed.touches(first) and self._is_swap(files, inode)

    def _holds_key(self, files: Ext4Files, inode: Inode) -> bool:
        try:
            pieces = files.layout.ranges(inode)
        except DocumentRefusedError:
            return False  # what cannot be followed here cannot be read by a guest either
        tail, end = b"", -1
        for piece in pieces:
            for part in self._changed.within(piece):
                for start in range(part.start, part.stop, _PIECE_BYTES):
                    raw = self._disk.read(start, min(_PIECE_BYTES, part.stop - start))
                    if _KEY_IN_TEXT.search(tail + raw if end == start else raw):
                        return True
                    tail, end = raw[-_OVERLAP_BYTES:], start + len(raw)
        return False


def is_followed(inode: Inode) -> bool:
    """Whether a file's content can be found here: files of ext3 keep maps of blocks instead of extents."""
    return not inode.size or bool(inode.extents_root)


def _names(files: Ext4Files, wanted: set[int], directories: Sequence[Inode]) -> dict[int, str]:
    """Absolute paths of inodes: first where new files stand, in directories that were changed; else everywhere."""
    found: dict[int, str] = {}
    for directory in directories:
        for entry in files.directory(directory):
            if entry.inode in wanted and entry.inode not in found:
                above = _path_of(files, directory)
                if above is not None:
                    found[entry.inode] = f"{above}/{entry.name}"
    pending, seen = [(ROOT_INODE, "")], {ROOT_INODE}
    while pending and wanted - found.keys():
        number, path = pending.pop()
        for entry in files.directory(files.layout.inode(number)):
            if entry.inode in wanted:
                found.setdefault(entry.inode, f"{path}/{entry.name}")
            elif entry.is_directory and entry.inode not in seen:
                seen.add(entry.inode)
                pending.append((entry.inode, f"{path}/{entry.name}"))
    return found


def _path_of(files: Ext4Files, directory: Inode) -> str | None:
    """The absolute path of a directory, by what is above it; empty for the root."""
    names: list[str] = []
    for _ in range(_MAX_DEPTH * 2):
        if directory.number == ROOT_INODE:
            return "".join(f"/{name}" for name in reversed(names))
        number = files.parent(directory)
        if number is None:
            return None
        above = files.layout.inode(number)
        name = next((entry.name for entry in files.directory(above) if entry.inode == directory.number), None)
        if name is None:
            return None
        names.append(name)
        directory = above
    return None


def lines_of(files: Ext4Files, inode: Inode | None) -> dict[str, list[str]]:
    """The lines of a file such as /etc/passwd: the first field to all of them."""
    if inode is None or not inode.is_regular:
        return {}
    text = files.content(inode).decode(errors="surrogateescape")
    rows = [line.split(":") for line in text.split("\n") if ":" in line]
    return {fields[0]: fields for fields in rows}


def base_lines(disk: ChangedDisk, partition: ByteRange) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(passwd, shadow) of the base; empty where it has none that can be read."""
    try:
        files = Ext4Files(disk.read_base, partition)
        return lines_of(files, files.find(PASSWD)), lines_of(files, files.find(SHADOW))
    except DocumentRefusedError:
        return {}, {}


def is_person(fields: Sequence[str]) -> bool:
    """Whether a line of passwd is of somebody who may log in: no service that a package made."""
    uid, shell = (fields[2], fields[-1]) if len(fields) > 6 else ("", "")  # noqa: PLR2004  # passwd(5)
    return not uid.isdecimal() or int(uid) >= _FIRST_PERSON or int(uid) == 0 or not shell.endswith(("nologin", "false"))


def is_open(fields: Sequence[str]) -> bool:
    """Whether a line of shadow lets somebody in by password, or without one."""
    return len(fields) > 1 and not fields[1].startswith(("!", "*"))
