"""The map of a disk's blocks: gathered from a driver part by part, drawn as a grid or told as runs.

Bounded whatever the disk: a grid holds counts by cell, never a block; runs are cut after `MAX_RUNS`; a driver is asked
for so long and no longer. A map that is not whole says so, and calls the rest unknown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from oscirc.output import human_bytes

if TYPE_CHECKING:
    from oscirc_fusedriver.status import MapPart

MAX_RUNS = 1_000_000
ROWS = 16
LEAST_WIDTH = 16
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Look:
    """How one state of a block is told: its name in JSON, its letter and colour in the grid, and in words."""

    name: str
    letter: str
    colour: str
    words: str


# by the letters of `oscirc_remote.block_map.BlockState`; of states that are as frequent in a cell the first is drawn
LOOKS = {
    "a": Look("absent", "-", "white", "not here"),
    "p": Look("prefetched_unused", "p", "yellow", "fetched ahead, not read so far"),
    "u": Look("prefetched_used", "P", "green", "fetched ahead and read"),
    "d": Look("demanded", "D", "red", "fetched when a read waited for it"),
    "c": Look("cached", "c", "cyan", "in the cache from before, or from another mount"),
    "n": Look(UNKNOWN, "?", "magenta", "not known: its part of the table is not here, or was not looked at"),
    "z": Look("zero", ".", "bright_black", "zeros: never fetched"),
}
_STRANGE = LOOKS["n"]


@dataclass(slots=True)
class Cells:
    """So many cells, each a share of the disk, with the number of blocks of each state in it."""

    block_count: int
    cells: list[Counter[str]]
    looks: Mapping[str, Look] = field(default_factory=lambda: LOOKS)
    totals: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, block_count: int, most: int, looks: Mapping[str, Look] = LOOKS) -> Cells:
        """As many cells as may be, but none without a block."""
        return cls(block_count, [Counter() for _ in range(max(1, min(most, block_count)))], looks)

    def add(self, start: int, state: str, count: int) -> None:
        """The blocks from `start` on are of this state."""
        self.totals[state] += count
        cells, at, stop = len(self.cells), start, start + count
        while at < stop:
            cell = at * cells // self.block_count
            until = min(stop, -(-(cell + 1) * self.block_count // cells))
            self.cells[cell][state] += until - at
            at = until

    def letters(self) -> Iterator[Look]:
        """For each cell what most of its data is; zeros where it has none."""
        order = list(self.looks)
        for cell in self.cells:
            data = {state: count for state, count in cell.items() if state != "z"}
            known = [state for state in order if state in data] or [*data, "z"]
            yield self.looks.get(max(known, key=lambda state: data.get(state, 0)), _STRANGE)


@dataclass(slots=True)
class Runs:
    """Runs of equal blocks over the disk, at most `MAX_RUNS` of them."""

    runs: list[tuple[str, int]] = field(default_factory=list)
    looks: Mapping[str, Look] = field(default_factory=lambda: LOOKS)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, start: int, state: str, count: int) -> None:  # noqa: ARG002  # runs follow one another
        """The next blocks are of this state."""
        name = self.looks.get(state, _STRANGE).name
        self.totals[state] += count
        if self.runs and self.runs[-1][0] == name:
            self.runs[-1] = (name, self.runs[-1][1] + count)
        else:
            self.runs.append((name, count))

    @property
    def is_full(self) -> bool:
        """Whether no more is to be added."""
        return len(self.runs) >= MAX_RUNS


def gather(
    ask: Callable[[int], MapPart],
    first: MapPart,
    into: Cells | Runs,
    *,
    limit_s: float,
    now: Callable[[], float] = time.monotonic,
) -> bool:
    """Put `first` and all parts that follow into a grid or runs; False when it took too long or became too much."""
    until = now() + limit_s
    part = first
    while True:
        at = part.start
        for state, count in part.runs:
            into.add(at, state, count)
            at += count
        if part.next is None:
            return True
        if now() > until or (isinstance(into, Runs) and into.is_full):
            into.add(at, "n", part.block_count - at)
            return False
        part = ask(part.next)


def draw(cells: Cells, block_size: int, *, width: int, colour: bool) -> list[str]:
    """The grid in rows of `width`, then what each letter means with its number of blocks and their bytes."""
    looks = list(cells.letters())
    letters = [_letter(look, colour=colour) for look in looks]
    share = human_bytes(cells.block_count * block_size / len(looks))
    lines = ["".join(letters[at : at + width]) for at in range(0, len(letters), width)]
    lines += ["", f"one letter stands for {share}: for what most of the data in it is"]
    for state, look in cells.looks.items():
        count = cells.totals[state]
        if count:
            size = human_bytes(count * block_size)
            lines.append(f"  {_letter(look, colour=colour)}  {count:>11} blocks  {size:>10}  {look.words}")
    return lines


def _letter(look: Look, *, colour: bool) -> str:
    return click.style(look.letter, fg=look.colour, bold=look.letter.isalpha()) if colour else look.letter


def counts(totals: Counter[str], looks: Mapping[str, Look] = LOOKS) -> dict[str, int]:
    """Every state by its name with its number of blocks."""
    return {look.name: totals[state] for state, look in looks.items()}
