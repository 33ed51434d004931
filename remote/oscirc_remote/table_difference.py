"""Two tables side by side, position by position: what is unchanged, changed, new, removed, zeros on the disk.

Walked together from their roots in the order of the disk; a subtree that both share is not fetched, and looked into
only as far as it is here. Disks of different sizes are compared as long as their blocks have one size: the smaller
table is taken as the beginning of one as deep as the larger.

Nodes come from publishers, so each is checked at its place, and how many leaves are gone through is bounded: a table
whose entries all name one child is as long as a real one of 32 TiB, and no longer.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.errors import TableRefusedError, UsageError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import (
    FANOUT,
    NODE_SIZE,
    LoadNode,
    check_node,
    check_root,
    entry,
    positions_below,
)

MAX_LEAVES = 1 << 17
_REMEMBERED_RUNS = 1 << 18
_ZERO_NODE = bytes(NODE_SIZE)
_SLOTS = struct.Struct(f"{DIGEST_SIZE}s" * FANOUT)


class Change(StrEnum):
    """What became of a position; the letters are those of `oscirc diff --map --json` runs."""

    UNCHANGED = "s"
    CHANGED = "c"
    NEW = "n"
    REMOVED = "r"
    ZERO = "z"


Sink = Callable[[int, str, int], None]
"""Told (position, `Change`, how many), in order and without gaps, over the longer of two disks."""


@dataclass(slots=True)
class TableDifference:
    """Positions by what became of them; digests that the new table has at a changed place and the old one nowhere.

    Exact as far as shared leaves are here: a block that only moved there from one that is not counts as fresh.
    """

    positions: Counter[str] = field(default_factory=Counter)
    fresh_blocks: set[Digest] = field(default_factory=set)
    fresh_nodes: set[Digest] = field(default_factory=set)
    gone_nodes: set[Digest] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where nodes come from: either table's, what is here of any (None else), and `prepare` to have many fetched."""

    old: LoadNode
    new: LoadNode
    resident: Callable[[Digest], bytes | None]
    prepare: Callable[[Sequence[Digest], Sequence[Digest]], None] = lambda _old, _new: None


def compare(
    old: Manifest,
    new: Manifest,
    nodes: Nodes,
    sink: Sink = lambda _at, _change, _count: None,
    *,
    with_blocks: bool = True,
) -> TableDifference:
    """Walk both tables; `UsageError` where the blocks have two sizes, and what loading nodes raises.

    Without blocks `fresh_blocks` stays empty: memory then goes with the nodes that differ, not with their blocks.
    """
    if old.geometry.block_size != new.geometry.block_size:
        raise UsageError(
            f"blocks of {old.geometry.block_size} bytes cannot be compared with blocks of {new.geometry.block_size}",
            hint="these versions share nothing: all of the new one is fetched",
        )
    check_root(old.geometry, old.root)
    check_root(new.geometry, new.root)
    walk = _Walk(old, new, nodes, sink, with_blocks=with_blocks)
    walk.level(max(old.root.depth, new.root.depth) - 1, 0, old.root.digest, new.root.digest)
    walk.found.fresh_blocks -= walk.known
    walk.found.fresh_nodes -= walk.found.gone_nodes
    return walk.found


class _Walk:
    """Both tables, walked together; `known` are digests of blocks that the old disk has."""

    def __init__(self, old: Manifest, new: Manifest, nodes: Nodes, sink: Sink, *, with_blocks: bool) -> None:
        self._old, self._new, self._nodes, self._sink = old, new, nodes, sink
        self._with_blocks = with_blocks
        self._count = max(old.geometry.block_count, new.geometry.block_count)
        self._leaves = 0
        self._runs: dict[tuple[Digest, Digest], list[tuple[str, int]]] = {}
        self._runs_left = _REMEMBERED_RUNS
        self.found = TableDifference()
        self.known: set[Digest] = set()

    def level(self, level: int, index: int, old: Digest, new: Digest) -> None:
        """Go through what stands below two nodes of the same place, of which at least one is not zeros."""
        first, span = index * positions_below(level + 1), positions_below(level + 1)
        stop = min(first + span, self._count)
        if first >= stop:
            return
        # above its root a table's "node" is one that has the root as its first entry: the same digest, another level
        above = level >= self._old.root.depth, level >= self._new.root.depth
        if old == new and above[0] == above[1]:
            self._shared(level, index, old, first, stop)
            return
        left, right = (
            self._loaded(self._old, self._nodes.old, level, index, old),
            self._loaded(self._new, self._nodes.new, level, index, new),
        )
        self._note_nodes(old, new, above)
        if level == 0:
            self._leaf((old, new), left, right, first, stop)
            return
        self._prepare(level, left, right)
        for slot in range(FANOUT):
            if first + slot * positions_below(level) >= stop:
                break
            self.level(level - 1, index * FANOUT + slot, entry(left, slot), entry(right, slot))

    def _note_nodes(self, old: Digest, new: Digest, above: tuple[bool, bool]) -> None:
        if old != ZERO_DIGEST and not above[0]:
            self.found.gone_nodes.add(old)
        if new != ZERO_DIGEST and not above[1]:
            self.found.fresh_nodes.add(new)

    def _prepare(self, level: int, left: bytes, right: bytes) -> None:
        """Have the children fetched of which the two tables have different ones."""
        pairs = [(entry(left, slot), entry(right, slot)) for slot in range(FANOUT)]
        differing = [(a, b) for a, b in pairs if a != b]
        wanted_old = [a for a, _ in differing if a != ZERO_DIGEST and level <= self._old.root.depth]
        wanted_new = [b for _, b in differing if b != ZERO_DIGEST and level <= self._new.root.depth]
        self._nodes.prepare(wanted_old, wanted_new)

    def _shared(self, level: int, index: int, digest: Digest, first: int, stop: int) -> None:
        """A subtree that is the same in both: zeros, or unchanged as far as nobody looks into it."""
        if digest == ZERO_DIGEST:
            self._tell(first, [(Change.ZERO, stop - first)])
            return
        if level >= self._new.root.depth:  # above both roots, which are one
            raw: bytes | None = digest + bytes(NODE_SIZE - len(digest))
        else:
            raw = self._nodes.resident(digest)
        if raw is None:
            self._tell(first, [(Change.UNCHANGED, stop - first)])
            return
        if level < self._new.root.depth:
            check_node(raw, self._new.geometry, level, index)
        if level == 0:
            self._leaf((digest, digest), raw, raw, first, stop)
            return
        for slot in range(FANOUT):
            start = first + slot * positions_below(level)
            if start >= stop:
                break
            end = min(stop, start + positions_below(level))
            self._shared(level - 1, index * FANOUT + slot, entry(raw, slot), start, end)

    def _leaf(self, names: tuple[Digest, Digest], left: bytes, right: bytes, first: int, stop: int) -> None:
        self._leaves += 1
        if self._leaves > MAX_LEAVES:
            raise TableRefusedError("these versions differ in more than can be shown")
        runs = self._runs.get(names)
        if runs is None:
            runs = self._compared(left, right)
            if len(runs) <= self._runs_left:
                self._runs[names] = runs
                self._runs_left -= len(runs)
        at, kept = first, []
        for change, count in runs:
            kept.append((change, min(count, stop - at)))
            at += count
            if at >= stop:
                break
        self._tell(first, kept)

    def _compared(self, left: bytes, right: bytes) -> list[tuple[str, int]]:
        """Runs over the 1024 slots of two leaves."""
        changes: list[str] = []
        olds, news = _SLOTS.unpack(left), _SLOTS.unpack(right)
        if self._with_blocks:
            self.known.update(olds)
        for old, new in zip(olds, news, strict=True):
            if old == new:
                changes.append(Change.ZERO if new == ZERO_DIGEST else Change.UNCHANGED)
            elif new == ZERO_DIGEST:
                changes.append(Change.REMOVED)
            else:
                changes.append(Change.NEW if old == ZERO_DIGEST else Change.CHANGED)
                if self._with_blocks:
                    self.found.fresh_blocks.add(new)
        return [(change, len(list(run))) for change, run in groupby(changes)]

    def _tell(self, first: int, runs: Sequence[tuple[str, int]]) -> None:
        at = first
        for change, count in runs:
            self.found.positions[change] += count
            self._sink(at, change, count)
            at += count

    @staticmethod
    def _loaded(table: Manifest, load: LoadNode, level: int, index: int, digest: Digest) -> bytes:
        """A node of one of the tables; above its root one that has the root as its first entry."""
        if digest == ZERO_DIGEST:
            return _ZERO_NODE
        if level >= table.root.depth:
            return digest + bytes(NODE_SIZE - len(digest))
        return check_node(load(digest), table.geometry, level, index)
