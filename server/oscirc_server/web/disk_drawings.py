"""Draws a `DiskMap` as values for SVG: rows of square cells, filled from below by the share of what became of each.

Shapes carry what colours do: what changed fills its cell from below, what is new is striped, what became zeros is a
hollow frame, what stayed is flat and pale, zeros are a dot. One path per kind and row, so that a picture of a thousand
cells is a few tens of kilobytes; every row has its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oscirc_server.services.disk_maps import COLUMNS, KINDS, ChangedRun, DiskMap

CELL: Final = 12
_INNER: Final = CELL - 2
WORDS: Final = {
    "changed": "changed",
    "new": "new: zeros before",
    "removed": "became zeros",
    "unchanged": "unchanged",
    "zero": "zeros in both",
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of cells: its words, and for each kind that it has the path of its parts."""

    title: str
    paths: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the legend, with bytes on the disk."""

    kind: str
    words: str
    size: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it, in its own units; `cell_bytes` is what a cell stands for, `unseen` bytes were not looked at."""

    width: int
    height: int
    rows: tuple[Row, ...]
    legend: tuple[Key, ...]
    cell_bytes: int
    unseen: int


@dataclass(frozen=True, slots=True)
class RunLine:
    """A line of the table beside the picture, in bytes."""

    start: int
    size: int
    words: str


def picture(found: DiskMap) -> Picture:
    """The drawing of a map."""
    columns = min(COLUMNS, len(found.cells))
    rows = tuple(_row(found, first, columns) for first in range(0, len(found.cells), columns))
    totals = [sum(cell[at] for cell in found.cells) for at in range(len(KINDS))]
    legend = tuple(
        Key(kind, WORDS[kind], total * found.block_size) for kind, total in zip(KINDS, totals, strict=True) if total
    )
    return Picture(
        width=columns * CELL,
        height=len(rows) * CELL,
        rows=rows,
        legend=legend,
        cell_bytes=found.block_count * found.block_size // len(found.cells),
        unseen=(found.block_count - found.seen) * found.block_size,
    )


def run_lines(found: DiskMap) -> list[RunLine]:
    """The longest runs of what differs, in the order of the disk."""
    return [RunLine(run.start * found.block_size, run.count * found.block_size, _run_words(run)) for run in found.runs]


def _run_words(run: ChangedRun) -> str:
    parts = [(count, WORDS[kind]) for kind, count in zip(KINDS, run.kinds, strict=False) if count]
    if len(parts) == 1:
        return parts[0][1]
    return ", ".join(f"{round(100 * count / run.count)} % {words}" for count, words in parts)


def _row(found: DiskMap, first: int, columns: int) -> Row:
    cells = found.cells[first : first + columns]
    top = first // columns * CELL
    paths: dict[str, list[str]] = {}
    for column, cell in enumerate(cells):
        _draw_cell(paths, cell, column * CELL + 1, top + 1)
    sums = [sum(cell[at] for cell in cells) for at in range(len(KINDS))]
    return Row(
        _title(found, first, len(cells), sums), tuple((kind, "".join(paths[kind])) for kind in KINDS if kind in paths)
    )


def _draw_cell(paths: dict[str, list[str]], cell: Sequence[int], left: int, top: int) -> None:
    """Bars over one another, the first kind at the bottom; what is there at all has a unit."""
    total = sum(cell)
    if not total:
        return
    present = [at for at in range(len(KINDS)) if cell[at]]
    heights = {at: max(1, _INNER * cell[at] // total) for at in present}
    largest = max(present, key=lambda at: cell[at])
    heights[largest] += _INNER - sum(heights.values())
    bottom = top + _INNER
    for at in present:
        bottom -= heights[at]
        paths.setdefault(KINDS[at], []).append(f"M{left} {bottom}h{_INNER}v{heights[at]}h-{_INNER}z")


def _title(found: DiskMap, first: int, cells: int, sums: Sequence[int]) -> str:
    from_mib = found.cell_start(first) * found.block_size >> 20
    to_mib = found.cell_start(first + cells) * found.block_size >> 20
    total = sum(sums)
    if not total:
        return f"{from_mib} to {to_mib} MiB: not looked at"
    shares = ", ".join(
        f"{_percent(count, total)} {WORDS[kind]}" for kind, count in zip(KINDS, sums, strict=True) if count
    )
    return f"{from_mib} to {to_mib} MiB: {shares}"


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.0f} %" if share >= 1 else "less than 1 %"
