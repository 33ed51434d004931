"""Two versions of a disk side by side: which blocks and nodes the new one has that the old one lacks at that place.

Both tables are walked together from their roots; where they agree nothing is loaded, so the cost is that of what
changed. Disks of different sizes are compared as long as their blocks have one size: the smaller table is taken as
the beginning of one as deep as the larger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, check_node, check_root, entry

LoadNode = Callable[[Digest], bytes]
"""The verified bytes of a node of either version, or an `OscircError`."""

_ZERO_NODE = bytes(NODE_SIZE)


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node of the new table that the old one lacks at its place; `old` may be the zero digest."""

    new: Digest
    old: Digest
    entries: tuple[tuple[int, Digest], ...]
    """The slots whose digests differ, with the new ones."""


@dataclass(slots=True)
class Changes:
    """What differs, in the order of the disk.

    `new` and `old` map the digest of a block to the first place where it differs from the other version.
    """

    new: dict[Digest, int] = field(default_factory=dict)
    old: dict[Digest, int] = field(default_factory=dict)
    nodes: dict[Digest, NodeChange] = field(default_factory=dict)


def changes(old: Manifest, new: Manifest, load: LoadNode, *, most: int | None = None) -> Changes:
    """Walk both tables; `UsageError` where the blocks have two sizes, or more than `most` new ones differ."""
    one, two = old.geometry, new.geometry
    if one.block_size != two.block_size:
        raise UsageError(f"blocks of {one.block_size} bytes cannot be compared with blocks of {two.block_size}")
    check_root(one, old.root)
    check_root(two, new.root)
    walk = _Walk(one, two, load, most)
    if old.root.digest != new.root.digest or one.depth != two.depth:
        walk.node(max(one.depth, two.depth) - 1, 0, old.root.digest, new.root.digest)
    return walk.found


class _Walk:
    """Both tables, walked together."""

    def __init__(self, old: Geometry, new: Geometry, load: LoadNode, most: int | None) -> None:
        self._old, self._new, self._load, self._most = old, new, load, most
        self._seen: set[tuple[Digest, Digest, int, int, int]] = set()
        self.found = Changes()

    def node(self, level: int, index: int, old: Digest, new: Digest) -> None:
        """Go through a node of each, and what is below them, where it was not done before."""
        # what nodes may hold depends on their place only where a disk ends inside them: `positions` says both
        key = (old, new, level, self._old.positions(level, index), self._new.positions(level, index))
        if key in self._seen:
            return
        self._seen.add(key)
        left, right = self._loaded(self._old, level, index, old), self._loaded(self._new, level, index, new)
        differing = [slot for slot in range(FANOUT) if entry(left, slot) != entry(right, slot)]
        for slot in differing:
            if level:
                self.node(level - 1, index * FANOUT + slot, entry(left, slot), entry(right, slot))
            else:
                self._block(index * FANOUT + slot, entry(left, slot), entry(right, slot))
        if new != ZERO_DIGEST and level < self._new.depth:
            base = old
            if level >= self._old.depth:  # above the old root there is no node to start from
                base, differing = ZERO_DIGEST, [slot for slot in range(FANOUT) if entry(right, slot) != ZERO_DIGEST]
            entries = tuple((slot, entry(right, slot)) for slot in differing)
            self.found.nodes.setdefault(new, NodeChange(new, base, entries))

    def _block(self, position: int, old: Digest, new: Digest) -> None:
        if old != ZERO_DIGEST:
            self.found.old.setdefault(old, position)
        if new != ZERO_DIGEST:
            self.found.new.setdefault(new, position)
            if self._most is not None and len(self.found.new) > self._most:
                raise UsageError(f"more than {self._most} blocks differ between these versions")

    def _loaded(self, geometry: Geometry, level: int, index: int, digest: Digest) -> bytes:
        """A node of one of the tables; above its root one that has the root as its first entry."""
        if digest == ZERO_DIGEST:
            return _ZERO_NODE
        if level >= geometry.depth:
            return digest + bytes(NODE_SIZE - len(digest))
        return check_node(self._load(digest), geometry, level, index)
