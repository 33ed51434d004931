"""Cleans a changed disk of what `private_data` found: in a layer over it, so that what is below stays as it is.

- A file is emptied: its blocks are zeros, its size is 0. Names, owners and dates stay (`ext4_editing` says why).
- Passwords become those of the base; those of accounts that the base does not have are locked.
- Swap is zeroed but for its first page; in ext4, changed blocks that no file owns and the journal's old content are,
  and those that a file was given and has not written yet: they read as zeros, and hold what was there before.
- A file system that was not unmounted is refused: its journal holds what its blocks do not say yet.

The result is a `ChangedDisk` again, sound for e2fsck, and `private_data.look` finds in it nothing but what stays.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence

from oscirc_blockstore import ext4_editing
from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.disk_source import ByteRange, aligned
from oscirc_blockstore.errors import DiskRefusedError, DocumentRefusedError
from oscirc_blockstore.ext4_files import Ext4Files
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.partitions import find_partitions
from oscirc_blockstore.range_set import RangeSet
from oscirc_publisher.private_data import MAX_STEPS, SHADOW, Find, Remedy, base_lines, is_open
from oscirc_publisher.publishing import WatchedDisk

_PAGE_BYTES = 4096
_LOCKED = "!"


class CleanedDisk:
    """A changed disk with zeros and other bytes laid over it. Reading is safe for threads; it owns nothing."""

    def __init__(self, below: ChangedDisk, zeros: Iterable[ByteRange], patches: Iterable[tuple[int, bytes]]) -> None:
        self._below = below
        ordered = sorted(zeros, key=lambda place: place.start)
        self._zeros = RangeSet(aligned(iter(ordered), 1, below.size))
        self._patches = sorted(patches)
        self._starts = [start for start, _ in self._patches]
        self._longest = max((len(raw) for _, raw in self._patches), default=0)

    @property
    def base(self) -> Manifest:
        """The version that it was made on."""
        return self._below.base

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._below.size

    def changed(self) -> Iterator[ByteRange]:
        """What was changed below, and what is laid over it."""
        everything = ByteRange(0, self.size)
        laid = (ByteRange(start, start + len(raw)) for start, raw in self._patches)
        merged = heapq.merge(
            self._below.changed(), self._zeros.within(everything), laid, key=lambda extent: extent.start
        )
        return aligned(merged, 1, self.size)

    def extents(self) -> Iterator[ByteRange]:
        """As below; what is laid over it only where something is there already."""
        return self._below.extents()

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the cleaned disk, fewer only at its end."""
        raw = bytearray(self._below.read(offset, size))
        here = ByteRange(offset, offset + len(raw))
        for place in self._zeros.within(here):
            raw[place.start - offset : place.stop - offset] = bytes(place.size)
        for start, patch in self._patches_in(here):
            low, high = max(start, here.start), min(start + len(patch), here.stop)
            raw[low - offset : high - offset] = patch[low - start : high - start]
        return bytes(raw)

    def _patches_in(self, place: ByteRange) -> Iterator[tuple[int, bytes]]:
        """Those that are in this place, in part at least."""
        first = bisect.bisect_left(self._starts, place.start - self._longest)
        for start, patch in itertools.islice(self._patches, first, None):
            if start >= place.stop:
                return
            if start + len(patch) > place.start:
                yield start, patch

    def reads_as_zeros(self, offset: int, size: int) -> bool:
        """Where nothing is laid over it as below; where zeros are laid over all of it."""
        place = ByteRange(offset, min(offset + size, self.size))
        if any(True for _ in self._patches_in(place)):
            return False
        laid = next(self._zeros.within(place), None)
        return laid == place or self._below.reads_as_zeros(offset, size)

    def read_base(self, offset: int, size: int) -> bytes:
        """Bytes of the base."""
        return self._below.read_base(offset, size)

    def load_base(self, digest: Digest, raw_size: int) -> bytes:
        """A node or block of the base."""
        return self._below.load_base(digest, raw_size)

    def check_unchanged(self) -> None:
        """As below."""
        if isinstance(self._below, WatchedDisk):
            self._below.check_unchanged()

    def close(self) -> None:
        """What is below is its owner's to close."""


def clean(disk: ChangedDisk, found: Sequence[Find]) -> CleanedDisk:
    """`disk` without these finds; raises `DiskRefusedError` where one of them cannot be cleaned."""
    for find in found:
        if find.remedy is Remedy.NONE:
            raise DiskRefusedError(
                f"{find.where} cannot be cleaned: {find.words}",
                hint="start the machine once and shut it down properly (oscirc boot, oscirc stop); or --keep-secrets",
            )
    changed = RangeSet(disk.changed())
    zeros: list[ByteRange] = []
    patches: list[tuple[int, bytes]] = []
    for partition in find_partitions(disk.read, disk.size):
        if changed.touches(partition):
            here = [find for find in found if find.partition == partition]
            try:
                _clean_partition(disk, changed, partition, here, zeros, patches)
            except DocumentRefusedError as error:
                raise DiskRefusedError(f"what was found cannot be cleaned: {error}") from None
    return CleanedDisk(disk, zeros, patches)


def _clean_partition(
    disk: ChangedDisk,
    changed: RangeSet,
    partition: ByteRange,
    found: Sequence[Find],
    zeros: list[ByteRange],
    patches: list[tuple[int, bytes]],
) -> None:
    if any(not find.inode and find.remedy is Remedy.ZEROED for find in found):
        zeros += changed.within(ByteRange(partition.start + _PAGE_BYTES, partition.stop))
    try:
        files = Ext4Files(disk.read, partition, max_steps=MAX_STEPS)
    except DocumentRefusedError:
        return  # what is in it either stays or was refused before
    layout = files.layout
    for number in dict.fromkeys(find.inode for find in found if find.inode):
        place = layout.inode_place(number)
        raw = disk.read(place.start, place.size)
        pieces = layout.ranges(layout.parse_inode(number, raw))
        if any(find.inode == number and find.remedy is Remedy.ZEROED for find in found):
            pieces = [ByteRange(pieces[0].start + _PAGE_BYTES, pieces[0].stop), *pieces[1:]]
        else:
            emptied = ext4_editing.emptied(layout, number, raw)
            patches += [] if emptied is None else [(place.start, emptied)]
        zeros += itertools.chain.from_iterable(map(changed.within, pieces))
    if any(find.remedy is Remedy.PASSWORD for find in found):
        patches += _passwords(disk, partition, files)
    for inode in files.inodes_in(changed):
        if inode.is_regular:
            zeros += itertools.chain.from_iterable(map(changed.within, layout.ranges(inode, unwritten=True)))
    zeros += ext4_editing.free_places(layout, disk.read, partition, changed)
    zeros += itertools.chain.from_iterable(map(changed.within, ext4_editing.journal_places(layout, disk.read)))


def _passwords(disk: ChangedDisk, partition: ByteRange, files: Ext4Files) -> Iterator[tuple[int, bytes]]:
    """/etc/shadow with the passwords of the base, in the place where it stands."""
    inode = files.find(SHADOW)
    if inode is None:
        return
    _, old = base_lines(disk, partition)
    lines = files.content(inode).decode(errors="surrogateescape").split("\n")
    for number, line in enumerate(lines):
        fields = line.split(":")
        if is_open(fields) and fields[1:2] != old.get(fields[0], [])[1:2]:
            fields[1] = old.get(fields[0], ["", _LOCKED])[1]
            lines[number] = ":".join(fields)
    text = "\n".join(lines).encode(errors="surrogateescape")
    place = files.layout.inode_place(inode.number)
    raw = disk.read(place.start, place.size)
    yield place.start, ext4_editing.resized(files.layout, inode.number, raw, len(text))
    for piece in files.layout.ranges(inode):
        yield piece.start, text[: piece.size].ljust(piece.size, b"\0")
        text = text[piece.size :]
