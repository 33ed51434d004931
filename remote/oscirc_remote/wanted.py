"""What of a bundle may be kept: digests that stand in nodes reached from the signed root.

A bundle is not signed. Each of its entries hashes to the digest that it states, but only the signed table says whether
anybody wants that digest; without this filter a lying bundle could fill the cache with bytes of its choice.

Memory and time are bounded by the bundle's own index, whatever tree a publisher signed: of a node's 1024 entries those
count that the bundle names, and a node that repeats is looked into once per level, at the first place where it stands.
"""

from __future__ import annotations

from collections.abc import Container

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableRoot, check_node, entry


class Wanted:
    """Grows from the root as nodes are accepted. Not safe for threads: one bundle's thread owns it."""

    def __init__(self, geometry: Geometry, root: TableRoot, named: Container[Digest]) -> None:
        self._geometry = geometry
        self._named = named
        self._nodes: dict[Digest, dict[int, int]] = {}  # by level, the index of the first node that is this
        self._accepted: set[tuple[Digest, int]] = set()
        self._positions: dict[Digest, int] = {}
        if root.digest != ZERO_DIGEST:
            self._nodes[root.digest] = {root.depth - 1: 0}

    def accept(self, digest: Digest, raw: bytes) -> bool:
        """Whether the table asks for it, a node or a block; a node's entries are wanted from then on.

        Raises `TableRefusedError` for a node that cannot stand where the signed table has it.
        """
        if len(raw) != NODE_SIZE:
            return digest in self._positions
        places = self._nodes.get(digest)
        if places is None:
            return False
        for level, index in list(places.items()):
            if (digest, level) not in self._accepted:
                self._accepted.add((digest, level))
                self._expand(check_node(raw, self._geometry, level, index), level, index)
        return True

    def position_of(self, digest: Digest) -> int | None:
        """The first position known to hold that block."""
        return self._positions.get(digest)

    def has_node(self, digest: Digest) -> bool:
        """Whether this is a node that the table has, as far as it is known."""
        return digest in self._nodes

    def lacks_node(self, digest: Digest) -> bool:
        """Whether this is a node that the table has, whose entries are not known yet."""
        return any((digest, level) not in self._accepted for level in self._nodes.get(digest, ()))

    def _expand(self, node: bytes, level: int, index: int) -> None:
        for slot in range(FANOUT):
            child = entry(node, slot)
            if child == ZERO_DIGEST or child not in self._named:
                continue
            if level:
                self._nodes.setdefault(child, {}).setdefault(level - 1, index * FANOUT + slot)
            else:
                self._positions.setdefault(child, index * FANOUT + slot)
