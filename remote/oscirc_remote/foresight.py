"""What a boot of this image will probably read, found on the image itself: where no boot of it was recorded.

The file systems of the disk are looked into (ext4, on partitions or the whole disk) and the files are found there that
boots of Linux systems usually read (`boot_paths.txt`), in the order in which they read them. What the guest's own file
system driver reads first, inode tables and directories, has been fetched on the way. Figures: ADR 9.

Everything looked at is part of the signed image and verified as such; it is still somebody else's data: how much is
fetched and looked at to make a plan is bounded (`MAX_LOOKED_AT_BYTES`, `MAX_STEPS`), and a plan is advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Protocol

from oscirc_blockstore import boot_paths
from oscirc_blockstore.boot_paths import Pattern, Place
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.ext4 import Ext4
from oscirc_blockstore.partitions import HEAD_BYTES, find_partitions

MAX_LOOKED_AT_BYTES = 256 << 20
MAX_POSITIONS = 1 << 16
MAX_FILE_SYSTEMS = 8
MAX_STEPS = 400_000
_TABLES_WHOLE_BYTES = 64 << 20
_SUPERBLOCK = ByteRange(1024, 2048)


class Blocks(Protocol):
    """The blocks of a disk, by position."""

    block_size: int
    disk_size: int

    def fetch_all(self, positions: Iterable[int]) -> None:
        """Have these fetched at once, and wait; one that cannot be had is no error here."""

    def block(self, position: int) -> bytes:
        """The bytes of one block; raises what the network does."""


class Disk:
    """Bytes of a disk by offset, for whoever plans. Raises `DocumentRefusedError` when it has looked at too much."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.looked_at: dict[int, None] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Bytes; fewer only at the end of the disk."""
        stop = min(offset + size, self._blocks.disk_size)
        if offset >= stop:
            return b""
        positions = self.positions([ByteRange(offset, stop)])
        self._note(positions)
        start = positions.start * self._blocks.block_size
        return b"".join(map(self._blocks.block, positions))[offset - start : stop - start]

    def prepare(self, ranges: Iterable[ByteRange]) -> None:
        """These will be read next."""
        missing: dict[int, None] = {}
        for piece in ranges:
            for position in self.positions([piece]):
                if position not in self.looked_at:
                    missing[position] = None
                    self._check(len(self.looked_at) + len(missing))
        self._note(missing)
        self._blocks.fetch_all(missing)

    def positions(self, ranges: Iterable[ByteRange]) -> range:
        """The blocks from the first to the last byte of these."""
        pieces = [piece for piece in ranges if piece.size]
        if not pieces:
            return range(0)
        size, last = self._blocks.block_size, (self._blocks.disk_size - 1) // self._blocks.block_size
        return range(pieces[0].start // size, min((pieces[-1].stop - 1) // size, last) + 1)

    def _note(self, positions: Iterable[int]) -> None:
        for position in positions:
            self.looked_at[position] = None
            self._check(len(self.looked_at))

    def _check(self, count: int) -> None:
        if count * self._blocks.block_size > MAX_LOOKED_AT_BYTES:
            raise DocumentRefusedError("looking for the files that a boot reads takes too much of the disk")


@dataclass(frozen=True, slots=True)
class Conditional:
    """Positions that are read by who runs a program: `signs` are the blocks of the program, those it has to itself."""

    signs: frozenset[int]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Positions that were looked at, those that a boot reads then, in order, and those that it reads on a condition."""

    looked_at: tuple[int, ...] = ()
    foreseen: tuple[int, ...] = ()
    conditional: tuple[Conditional, ...] = ()


def plan(blocks: Blocks) -> Plan:
    """What a boot of this disk reads; raises what the network does.

    Empty but for what was looked at where no file system that can be read was found.
    """
    disk = Disk(blocks)
    places: list[Place] = []
    try:
        disk.prepare([ByteRange(0, min(HEAD_BYTES, blocks.disk_size))])
        partitions = find_partitions(disk.read, blocks.disk_size)[:MAX_FILE_SYSTEMS]
        disk.prepare([ByteRange(part.start + _SUPERBLOCK.start, part.start + _SUPERBLOCK.stop) for part in partitions])
        for partition in partitions:
            places += _files(disk, partition)
    except DocumentRefusedError:
        pass
    places.sort(key=lambda place: place.pattern)
    patterns, programs = _patterns()
    found: dict[int, str] = {}  # position to the program on whose condition it is read
    signs: dict[str, set[int]] = {}
    touched = ((place.pattern, position) for place in places for position in disk.positions([place.range]))
    for number, position in touched:
        if number in programs:
            signs.setdefault(programs[number], set()).add(position)
        elif position not in disk.looked_at:
            condition = patterns[number].program
            found[position] = condition if found.get(position, condition) else ""
        if len(found) >= MAX_POSITIONS:
            break
    return Plan(
        tuple(disk.looked_at),
        tuple(position for position, program in found.items() if not program),
        tuple(
            Conditional(own, tuple(position for position, condition in found.items() if condition == program))
            for program, shared in signs.items()
            if (own := frozenset(shared).difference(found, disk.looked_at))
        ),
    )


def _files(disk: Disk, partition: ByteRange) -> Iterable[Place]:
    try:
        file_system = Ext4(disk.read, partition, max_steps=MAX_STEPS)
        disk.prepare([file_system.descriptors])
        tables = list(file_system.inode_tables())
        if sum(table.size for table in tables) <= _TABLES_WHOLE_BYTES:
            disk.prepare(tables)
        return boot_paths.expand(file_system, _patterns()[0], disk.prepare)
    except DocumentRefusedError:
        return ()


@cache
def _patterns() -> tuple[list[Pattern], dict[int, str]]:
    """The list, and behind it the programs that its conditions name, with their numbers."""
    text = resources.files("oscirc_remote").joinpath("boot_paths.txt").read_text(encoding="utf-8")
    patterns = boot_paths.parse(text)
    programs = list(dict.fromkeys(pattern.program for pattern in patterns if pattern.program))
    numbers = {len(patterns) + at: program for at, program in enumerate(programs)}
    return [*patterns, *(Pattern(tuple(program.split("/"))) for program in programs)], numbers
