"""An image's mapping table as its reader sees it: position to digest, with the checked nodes remembered.

Nodes are checked (`table.check_node`) once, when they are first met at a place; a warm look-up then is one slice of
a remembered leaf. What is remembered is bounded: a leaf covers 1024 blocks, so 256 of them cover 64 GiB of disk at
the usual block size in 8 MiB of memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.table import FANOUT, Geometry, TableRoot, check_node, check_root, entry, positions_below

REMEMBERED_NODES = 256
_FANOUT_SHIFT = FANOUT.bit_length() - 1

LoadNode = Callable[[Digest], bytes | None]
"""The verified bytes of a node, or None where the caller only wants what is resident and this one is not."""


class TableView:
    """Looks positions up. Safe for threads."""

    def __init__(self, geometry: Geometry, root: TableRoot, *, remembered_nodes: int = REMEMBERED_NODES) -> None:
        check_root(geometry, root)
        self._geometry = geometry
        self._root = root
        self._limit = remembered_nodes
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._lock = threading.Lock()

    @property
    def geometry(self) -> Geometry:
        """The disk's sizes."""
        return self._geometry

    def digest_at(self, position: int, load: LoadNode) -> Digest | None:
        """The digest of the block at `position`; None when `load` gave None on the way there."""
        leaf = self._nodes.get((0, position >> _FANOUT_SHIFT))
        if leaf is None:
            return self._walk(position, load)
        start = (position & (FANOUT - 1)) * DIGEST_SIZE
        return Digest(leaf[start : start + DIGEST_SIZE])

    def _walk(self, position: int, load: LoadNode) -> Digest | None:
        digest = self._root.digest
        for level in range(self._root.depth - 1, -1, -1):
            if digest == ZERO_DIGEST:
                break
            index, within = divmod(position, positions_below(level + 1))
            node = self._nodes.get((level, index))
            if node is None:
                raw = load(digest)
                if raw is None:
                    return None
                node = check_node(raw, self._geometry, level, index)
                self._remember((level, index), node)
            digest = entry(node, within // positions_below(level))
        return digest

    def _remember(self, place: tuple[int, int], node: bytes) -> None:
        with self._lock:
            while len(self._nodes) >= self._limit:
                del self._nodes[next(iter(self._nodes))]
            self._nodes[place] = node

    def leaves(
        self, load: LoadNode, prepare: Callable[[Sequence[Digest]], None] = lambda _: None
    ) -> Iterator[tuple[Digest, bytes]]:
        """(digest, node) of every leaf with data, by position, each checked; one that repeats is given again.

        `prepare` is told the children of a node before they are loaded, so that it can have them fetched at once.
        Leaves whose path `load` does not give are passed over.
        """

        def walk(level: int, index: int, digest: Digest) -> Iterator[tuple[Digest, bytes]]:
            raw = load(digest)
            if raw is None:
                return
            node = check_node(raw, self._geometry, level, index)
            if level == 0:
                yield digest, node
                return
            prepare(list(dict.fromkeys(entries(node))))
            for slot in range(FANOUT):
                child = entry(node, slot)
                if child != ZERO_DIGEST:
                    yield from walk(level - 1, index * FANOUT + slot, child)

        if self._root.digest != ZERO_DIGEST:
            yield from walk(self._root.depth - 1, 0, self._root.digest)

    def spans(self, start: int, load: LoadNode) -> Iterator[tuple[int, int, bytes | None]]:
        """(position, how many, what) from the position `start` to the disk's end, in order and without gaps.

        `what` is a checked leaf that holds them; empty for zeros; None where `load` did not give the node that knows.
        """
        position, end = start, self._geometry.block_count
        while position < end:
            digest, what = self._root.digest, b""
            covered = positions_below(self._root.depth)
            for level in range(self._root.depth - 1, -1, -1):
                if digest == ZERO_DIGEST:
                    break
                raw = load(digest)
                if raw is None:
                    break
                index, within = divmod(position, positions_below(level + 1))
                what = check_node(raw, self._geometry, level, index)
                if level > 0:
                    covered = positions_below(level)
                    digest, what = entry(what, within // covered), b""
            stop = min(end, (position // covered + 1) * covered)
            known = what or (b"" if digest == ZERO_DIGEST else None)
            yield position, stop - position, known
            position = stop


def entries(node: bytes) -> Iterator[Digest]:
    """The digests in a node that are not zero, in order."""
    for start in range(0, len(node), DIGEST_SIZE):
        digest = node[start : start + DIGEST_SIZE]
        if digest != ZERO_DIGEST:
            yield Digest(digest)
