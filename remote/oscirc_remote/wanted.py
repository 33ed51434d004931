"""What of a bundle may be kept: digests that stand in nodes reached from the signed root.

A bundle is not signed. Each of its entries hashes to the digest that it states, but only the signed table says whether
anybody wants that digest; without this filter a lying bundle could fill the cache with bytes of its choice.
"""

from __future__ import annotations

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableRoot, check_node, entry

MAX_BLOCKS = 2_000_000


class Wanted:
    """Grows from the root as nodes are accepted. Not safe for threads: one bundle's thread owns it."""

    def __init__(self, geometry: Geometry, root: TableRoot) -> None:
        self.root = root.digest
        self._geometry = geometry
        self._nodes: dict[Digest, list[tuple[int, int]]] = {}
        self._accepted: set[Digest] = set()
        self._positions: dict[Digest, int] = {}
        if root.digest != ZERO_DIGEST:
            self._nodes[root.digest] = [(root.depth - 1, 0)]

    def accept(self, digest: Digest, raw: bytes) -> bool:
        """Whether the table asks for it, a node or a block; a node's entries are wanted from then on.

        Raises `IntegrityError` for a node that cannot stand where the table has it.
        """
        if len(raw) != NODE_SIZE:
            return digest in self._positions
        places = self._nodes.get(digest)
        if places is None:
            return False
        if digest not in self._accepted:
            self._accepted.add(digest)
            for level, index in places:
                self._expand(check_node(raw, self._geometry, level, index), level, index)
        return True

    def position_of(self, digest: Digest) -> int | None:
        """The first position known to hold that block."""
        return self._positions.get(digest)

    def _expand(self, node: bytes, level: int, index: int) -> None:
        for slot in range(FANOUT):
            child = entry(node, slot)
            if child == ZERO_DIGEST:
                continue
            if level:
                self._nodes.setdefault(child, []).append((level - 1, index * FANOUT + slot))
            elif len(self._positions) < MAX_BLOCKS:
                self._positions.setdefault(child, index * FANOUT + slot)
