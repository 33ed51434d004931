"""The disk as a map: what each block is on this machine, from its first to its last position, in runs.

Pure over a table and two questions, so that it can be asked in pages: a page holds about `MAX_RUNS` runs and ends early
when its caller has no more time. A sparse terabyte is a few runs and costs a few look-ups, since a subtree of zeros, or
one whose node is not here, is one span.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.table import FANOUT
from oscirc_remote.table_view import LoadNode, TableView

MAX_RUNS = 8192


class BlockState(StrEnum):
    """What a block is here, and how it came; each is the letter that stands for it in a map."""

    ZERO = "z"
    """All zeros: never stored, never fetched."""
    ABSENT = "a"
    """Not on this machine."""
    CACHED = "c"
    """In the cache since before this mount, or brought by another."""
    DEMANDED = "d"
    """Fetched by this mount since a read waited for it."""
    AHEAD_USED = "u"
    """Fetched ahead by this mount, and read since."""
    AHEAD_UNUSED = "p"
    """Fetched ahead by this mount, and not read so far."""
    UNKNOWN = "n"
    """The table's node that says what stands here is not on this machine."""


@dataclass(frozen=True, slots=True)
class MapPage:
    """A part of the map: runs of (state, number of blocks) from the position `start` on; `next` is None at its end."""

    start: int
    runs: list[tuple[str, int]]
    next: int | None
    block_count: int
    block_size: int


def page(
    table: TableView,
    load: LoadNode,
    state_of: Callable[[Digest], BlockState],
    start: int,
    *,
    out_of_time: Callable[[], bool] = lambda: False,
    max_runs: int = MAX_RUNS,
) -> MapPage:
    """The map from `start` on; at least one span of it. `load` gives a node only if it is here.

    Raises `UsageError` for a position that the disk has not.
    """
    geometry = table.geometry
    if not 0 <= start < geometry.block_count:
        raise UsageError(f"the disk has no block {start}: it has {geometry.block_count}")
    runs: list[tuple[str, int]] = []
    at = start
    for first, count, node in table.spans(start, load):
        if at > start and (len(runs) >= max_runs or out_of_time()):
            return MapPage(start, runs, at, geometry.block_count, geometry.block_size)
        if node is None:
            _add(runs, BlockState.UNKNOWN, count)
        elif not node:
            _add(runs, BlockState.ZERO, count)
        else:
            within = (first % FANOUT) * DIGEST_SIZE
            for offset in range(within, within + count * DIGEST_SIZE, DIGEST_SIZE):
                digest = node[offset : offset + DIGEST_SIZE]
                _add(runs, BlockState.ZERO if digest == ZERO_DIGEST else state_of(Digest(digest)), 1)
        at = first + count
    return MapPage(start, runs, None, geometry.block_count, geometry.block_size)


def _add(runs: list[tuple[str, int]], state: BlockState, count: int) -> None:
    if runs and runs[-1][0] == state.value:
        runs[-1] = (state.value, runs[-1][1] + count)
    else:
        runs.append((state.value, count))
