"""Which files and packages differ between two versions: their ext4 file systems are read through the cache, unmounted.

What has to be fetched is told to `allow` before it is fetched, step by step, since the next step is known by the last
one: inode tables by the group descriptors, directories by the inode tables, a list of packages by its inode. Only the
blocks with partition tables, superblocks and single inodes are fetched without that. Where
`allow` says no, `TooMuchToFetchError` says how much it was. Blocks that both versions share are fetched once.

The file systems are two publishers': bounded in bytes (`disk_view`), steps and entries (`ext4`, `file_tree`); what
cannot be read is passed over and said in `notes`, never an error of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from oscirc_blockstore import file_tree, packages
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError, OscircError, UsageError
from oscirc_blockstore.ext4 import Ext4
from oscirc_blockstore.file_tree import FileChange, FileTree, Prepare
from oscirc_blockstore.packages import Package, PackageChange
from oscirc_blockstore.partitions import HEAD_BYTES, find_partitions
from oscirc_remote.deadlines import Deadline
from oscirc_remote.disk_view import DiskView
from oscirc_remote.image_blocks import ImageBlocks
from oscirc_remote.resolving import Resolved
from oscirc_remote.sources import CachingSource
from oscirc_remote.table_view import TableView
from oscirc_remote.update_cost import GUESSED_SHARE, BlockLength

PATIENCE_S = 60.0
MAX_FILE_SYSTEMS = 8
_SUPERBLOCK = ByteRange(1024, 2048)
_RECOVER = 0x4

Allow = Callable[[str, int], bool]
"""Told what for and how many bytes about; whether these may be fetched."""


class TooMuchToFetchError(UsageError):
    """Not allowed: about so many bytes would have to be fetched, `what` for."""

    def __init__(self, what: str, size_bytes: int) -> None:
        super().__init__(f"{what} would take about {size_bytes} bytes")
        self.what = what
        self.size_bytes = size_bytes


@dataclass(frozen=True, slots=True)
class SystemPackages:
    """What a version calls itself, the packages it has (None: no list that is read), where an unread list stands."""

    name: str = ""
    installed: dict[str, Package] | None = None
    unread: str = ""


@dataclass(frozen=True, slots=True)
class PartitionFiles:
    """The files of one partition (counted from 1) that differ, largest first, and how many the new version has."""

    number: int
    changes: tuple[FileChange, ...]
    files: int


@dataclass(slots=True)
class VersionDisk:
    """One version, looked into."""

    resolved: Resolved
    source: CachingSource
    length: BlockLength = lambda _digest: None
    notes: list[str] = field(default_factory=list)
    view: DiskView = field(init=False)
    _trees: dict[int, tuple[Ext4, FileTree]] | None = None

    def __post_init__(self) -> None:
        geometry = self.resolved.manifest.geometry
        table = TableView(geometry, self.resolved.manifest.root)
        self.view = DiskView(ImageBlocks(table, self.source, lambda: Deadline.after(PATIENCE_S)))

    def trees(self, allow: Allow) -> dict[int, tuple[Ext4, FileTree]]:
        """The ext4 file systems by the number of their partition; only their first blocks are fetched unasked."""
        if self._trees is None:
            trees: dict[int, tuple[Ext4, FileTree]] = {}
            self.view.prepare([ByteRange(0, HEAD_BYTES)])
            partitions = find_partitions(self.view.read, self.view.disk_size)[:MAX_FILE_SYSTEMS]
            self.view.prepare(
                ByteRange(each.start + _SUPERBLOCK.start, each.start + _SUPERBLOCK.stop) for each in partitions
            )
            for number, partition in enumerate(partitions, 1):
                try:
                    layout = Ext4(self.view.read, partition, max_steps=file_tree.MAX_STEPS)
                    self.fetch("the descriptors of groups", [layout.descriptors], allow)
                    layout.groups()
                except DocumentRefusedError as error:
                    self.note(f"partition {number} is not looked into: {error}")
                    continue
                if layout.superblock[96] & _RECOVER:
                    self.note(f"partition {number} was not unmounted: what its journal holds is not read")
                trees[number] = layout, FileTree(layout, self.view.read)
            self._trees = trees
        return self._trees

    def missing(self, ranges: Iterable[ByteRange]) -> dict[Digest, int]:
        """The blocks that are not here of those in which these bytes stand, and about what they cost."""
        guess = round(GUESSED_SHARE * self.resolved.manifest.geometry.block_size)
        absent = (digest for digest in self.view.digests(ranges) if not self.source.has(digest))
        return {digest: self.length(digest) or guess for digest in absent}

    def note(self, text: str) -> None:
        """Something that whoever reads the result should know."""
        if text not in self.notes:
            self.notes.append(text)

    def fetch(self, what: str, ranges: list[ByteRange], allow: Allow) -> None:
        """Have these bytes here, if that is allowed."""
        _ask(what, self.missing(ranges), allow)
        self.view.prepare(ranges)


def system_packages(disk: VersionDisk, allow: Allow) -> SystemPackages:
    """What is installed in the first file system that says so."""
    name, unread = "", ""

    def prepare(ranges: Iterable[ByteRange]) -> None:
        disk.fetch("the directories on the way to the list of packages", list(ranges), allow)

    for number, (_, tree) in disk.trees(allow).items():
        try:
            name = name or _name(tree, prepare)
            unread = unread or next((path for path in packages.UNREAD_DATABASES if _is_there(tree, path, prepare)), "")
            for path, parse in packages.DATABASES.items():
                inode = tree.find(path, prepare)
                if inode is None:
                    continue
                ranges = tree.content_ranges(inode, packages.MAX_DATABASE_BYTES)
                disk.fetch("the list of packages", ranges, allow)
                raw = tree.content(inode, packages.MAX_DATABASE_BYTES)
                if raw is not None:
                    return SystemPackages(name, parse(raw))
        except DocumentRefusedError as error:
            disk.note(f"packages in partition {number} are not read: {error}")
    return SystemPackages(name, None, unread)


def changed_packages(old: SystemPackages, new: SystemPackages) -> list[PackageChange] | None:
    """The largest first; None unless both versions say what they have."""
    if old.installed is None or new.installed is None:
        return None
    return packages.compare_installed(old.installed, new.installed)


def changed_files(old: VersionDisk, new: VersionDisk, allow: Allow) -> list[PartitionFiles]:
    """The files that differ, of each partition that holds an ext4 file system in both versions."""
    trees = [(disk, disk.trees(allow)) for disk in (old, new)]
    both = trees[0][1].keys() & trees[1][1].keys()
    for number in trees[0][1].keys() ^ trees[1][1].keys():
        new.note(f"partition {number} holds an ext4 file system in one version only")
    found = []
    for number in sorted(both):
        sides = [(disk, *known[number]) for disk, known in trees]
        try:
            _fetch_both("the tables of inodes", [(disk, list(fs.inode_tables())) for disk, fs, _ in sides], allow)
            _fetch_both("the directories", [(disk, list(tree.directory_ranges())) for disk, _, tree in sides], allow)
            before, after = (tree.walk(disk.view.prepare) for disk, _, tree in sides)
        except DocumentRefusedError as error:
            new.note(f"files in partition {number} are not compared: {error}")
            continue
        found.append(PartitionFiles(number, tuple(file_tree.compare(before, after)), len(after)))
    return found


def _fetch_both(what: str, wanted: list[tuple[VersionDisk, list[ByteRange]]], allow: Allow) -> None:
    missing: dict[Digest, int] = {}
    for disk, ranges in wanted:
        missing = disk.missing(ranges) | missing
    _ask(what, missing, allow)
    for disk, ranges in wanted:
        disk.view.prepare(ranges)


def _ask(what: str, missing: dict[Digest, int], allow: Allow) -> None:
    size = sum(missing.values())
    if size and not allow(what, size):
        raise TooMuchToFetchError(what, size)


def _name(tree: FileTree, prepare: Prepare) -> str:
    for path in packages.OS_RELEASE_PATHS:
        inode = tree.find(path, prepare)
        if inode is not None:
            prepare(tree.content_ranges(inode, packages.MAX_OS_RELEASE_BYTES))
        raw = None if inode is None else tree.content(inode, packages.MAX_OS_RELEASE_BYTES)
        if raw:
            return packages.parse_os_release(raw)
    return ""


def _is_there(tree: FileTree, path: str, prepare: Prepare) -> bool:
    try:
        return tree.find(path, prepare) is not None
    except TooMuchToFetchError:
        raise
    except OscircError:
        return False
