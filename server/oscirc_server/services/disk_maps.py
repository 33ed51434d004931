"""Where on a disk two versions differ, gathered while their tables are walked: so many cells, and the longest runs.

Bounded whatever the disk: a cell holds five counts, never a block, and of runs the `MOST_RUNS` longest are kept. After
`limit_s` no more is looked at: the rest of the map says so. Pure, but for the clock that it is given.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from oscirc_blockstore.errors import TableRefusedError
from oscirc_remote.table_difference import Change

COLUMNS: Final = 64
MOST_ROWS: Final = 16
MOST_RUNS: Final = 12
KINDS: Final = ("changed", "new", "removed", "unchanged", "zero")
"""In the order of a cell's counts: what became of a position."""
_INDEX: Final = {
    Change.CHANGED.value: 0,
    Change.NEW.value: 1,
    Change.REMOVED.value: 2,
    Change.UNCHANGED.value: 3,
    Change.ZERO.value: 4,
}
_DIFFERENT: Final = 3  # the first kinds are those
_LOOK_EVERY: Final = 4096


class TakesTooLongError(TableRefusedError):
    """More to look at than there is time for."""


@dataclass(frozen=True, slots=True)
class ChangedRun:
    """Neighbouring positions that all differ: the first, how many, and how many of each kind (`KINDS`)."""

    start: int
    count: int
    kinds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiskMap:
    """The longer of two disks in equal cells, each with its counts of `KINDS`; `seen`: how far it was looked at.

    `runs` are the longest runs of positions that differ, in the order of the disk.
    """

    block_size: int
    block_count: int
    seen: int
    cells: tuple[tuple[int, ...], ...]
    runs: tuple[ChangedRun, ...]
    run_count: int

    def cell_start(self, cell: int) -> int:
        """The first position of a cell; that of the one after the last is the disk's end."""
        return -(-cell * self.block_count // len(self.cells))


class MapMaker:
    """Takes what `table_difference.compare` tells, in order; `TakesTooLongError` once the time is over."""

    def __init__(self, block_size: int, block_count: int, *, limit_s: float, now: Callable[[], float]) -> None:
        self._block_size, self._count = block_size, block_count
        self._cells = [[0] * len(KINDS) for _ in range(max(1, min(COLUMNS * MOST_ROWS, block_count)))]
        self._longest: list[tuple[int, int, tuple[int, ...]]] = []
        self._run_count = 0
        self._start, self._kinds = 0, [0] * _DIFFERENT
        self._seen = self._told = 0
        self._now, self._until = now, now() + limit_s

    def add(self, at: int, change: str, count: int) -> None:
        """The next positions, and what became of them."""
        self._told += 1
        if self._told % _LOOK_EVERY == 0 and self._now() > self._until:
            raise TakesTooLongError("these versions differ in more than can be looked at")
        kind = _INDEX[change]
        if kind < _DIFFERENT:
            if not any(self._kinds):
                self._start = at
            self._kinds[kind] += count
        else:
            self._end_run()
        cells, stop = len(self._cells), at + count
        self._seen = stop
        while at < stop:
            cell = at * cells // self._count
            until = min(stop, -(-(cell + 1) * self._count // cells))
            self._cells[cell][kind] += until - at
            at = until

    def _end_run(self) -> None:
        length = sum(self._kinds)
        if not length:
            return
        self._run_count += 1
        entry = (length, -self._start, tuple(self._kinds))
        if len(self._longest) < MOST_RUNS:
            heapq.heappush(self._longest, entry)
        elif entry > self._longest[0]:
            heapq.heapreplace(self._longest, entry)
        self._kinds = [0] * _DIFFERENT

    def finish(self) -> DiskMap:
        """The map of what was told."""
        self._end_run()
        runs = sorted((ChangedRun(-start, length, kinds) for length, start, kinds in self._longest), key=_start)
        cells = tuple(tuple(cell) for cell in self._cells)
        return DiskMap(self._block_size, self._count, self._seen, cells, tuple(runs), self._run_count)


def _start(run: ChangedRun) -> int:
    return run.start
