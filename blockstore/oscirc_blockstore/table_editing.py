"""A new table made of an old one and the blocks that changed, at a cost that follows from the changes alone.

Only nodes on the way from the root to a changed position are loaded. Whatever else the old table names is shared:
an entry is kept as it is, be it a block or a subtree of a terabyte, and nothing below it is looked at.

The result is the table that `TableBuilder` makes of the same blocks: a node that became all zeros is the zero digest,
a node that came out as it was is the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, LoadNode, TableRoot, check_node, check_root, entry

_ZERO_NODE = bytes(NODE_SIZE)

OnShared = Callable[[int, int, Digest], None]
"""Told what the new table takes over from the old one: level of what is named (-1: a block), its index, its digest."""


@dataclass(slots=True)
class _OpenNode:
    """A node that is being changed, and what it was."""

    index: int
    old: bytes
    new: bytearray


class TableEditor:
    """Takes changed blocks in ascending position, as a `TableBuilder` takes all; holds one path of nodes.

    `emit(digest, node)` is called for every node that is new; `load` gives the old ones and raises what it likes.
    """

    def __init__(
        self,
        geometry: Geometry,
        base: TableRoot,
        load: LoadNode,
        emit: Callable[[Digest, bytes], None],
        shared: OnShared | None = None,
    ) -> None:
        check_root(geometry, base)
        self._geometry = geometry
        self._base = base
        self._load = load
        self._emit = emit
        self._shared = shared
        self._next = 0
        self._open: list[_OpenNode | None] = [None] * geometry.depth
        self.added_blocks = 0
        """How many more positions hold data than in the old table; negative where there are fewer."""
        self.changed_blocks = 0
        """How many positions hold something else than in the old table."""

    def add(self, position: int, digest: Digest) -> None:
        """Put a block at `position`, or with the zero digest zeros; positions left out are as they were."""
        if not self._next <= position < self._geometry.block_count:
            raise TableRefusedError(f"position {position} is out of order or past the end of the disk")
        self._next = position + 1
        before = self._put(0, position, digest)
        self.changed_blocks += digest != before
        self.added_blocks += (digest != ZERO_DIGEST) - (before != ZERO_DIGEST)

    def finish(self) -> TableRoot:
        """Close what is open and return the root."""
        top = self._geometry.depth - 1
        if self._open[0] is None:
            self._share(top, 0, self._base.digest)
            return self._base
        digest = ZERO_DIGEST
        for level in range(self._geometry.depth):
            digest = self._close(level)
        return TableRoot(digest, self._geometry.depth)

    def _put(self, level: int, position: int, digest: Digest) -> Digest:
        """What stood there before."""
        index, slot = divmod(position, FANOUT)
        node = self._opened(level, index)
        before = entry(node.old, slot)
        node.new[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE] = digest
        return before

    def _opened(self, level: int, index: int) -> _OpenNode:
        """The node at this place, open; whatever was open at its level is closed, and those above it follow."""
        node = self._open[level]
        if node is not None and node.index == index:
            return node
        if node is not None:
            self._close(level)
        if level + 1 == self._geometry.depth:
            digest = self._base.digest
        else:
            digest = entry(self._opened(level + 1, index // FANOUT).old, index % FANOUT)
        old = _ZERO_NODE
        if digest != ZERO_DIGEST:
            old = check_node(self._load(digest), self._geometry, level, index)
        opened = self._open[level] = _OpenNode(index, old, bytearray(old))
        return opened

    def _close(self, level: int) -> Digest:
        """Finish the open node of a level and tell the one above; its digest."""
        node = self._open[level]
        if node is None:
            raise AssertionError("only what is open is closed")
        digest, raw = ZERO_DIGEST, bytes(node.new)
        if raw != _ZERO_NODE:
            digest = digest_of(raw)
            if raw != node.old:
                self._emit(digest, raw)
                self._share_entries(level, node)
        if level + 1 < self._geometry.depth:
            self._put(level + 1, node.index, digest)
        elif raw == node.old:
            self._share(level, node.index, digest)
        return digest

    def _share_entries(self, level: int, node: _OpenNode) -> None:
        """What is in a new node as it was."""
        if self._shared is None:
            return
        for slot in range(FANOUT):
            digest = entry(node.old, slot)
            if digest == bytes(node.new[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE]):
                self._share(level - 1, node.index * FANOUT + slot, digest)

    def _share(self, level: int, index: int, digest: Digest) -> None:
        if digest != ZERO_DIGEST and self._shared is not None:
            self._shared(level, index, digest)
