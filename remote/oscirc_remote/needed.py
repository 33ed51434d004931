"""What an image needs of the cache, and a filter that answers for any number of images in 16 MiB.

A table's nodes are walked as far as they are here: what a node that is missing names cannot be read without fetching
anyway. A node that repeats is walked once, so a table that names one node a million times costs no more than it holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE, check_root
from oscirc_remote.table_view import entries

_BITS_SHIFT = 27
_MASK = (1 << _BITS_SHIFT) - 1


def needed_digests(
    manifest: Manifest, store: LocalStore, missing: Callable[[Digest], None] = lambda _node: None
) -> Iterator[Digest]:
    """Every node and block of an image, as far as its nodes are in the store; some may come more than once.

    `missing` is told the nodes that are not.
    """
    with contextlib.suppress(TableRefusedError):  # no reader gets further than this either
        check_root(manifest.geometry, manifest.root)
        pending, seen = [(manifest.root.digest, manifest.root.depth - 1)], set()
        while pending:
            place = pending.pop()
            digest, level = place
            if digest == ZERO_DIGEST or place in seen:
                continue
            seen.add(place)
            node = store.load(digest, NODE_SIZE, counts=False)
            if node is None:
                missing(digest)
                continue
            yield digest
            if level:
                pending.extend((child, level - 1) for child in entries(node))
            else:
                yield from entries(node)


class DigestFilter:
    """A Bloom filter of two bits a digest: what was added is in it, and hardly anything else is.

    With a million digests in it, one of some four thousand others seems to be; with sixteen million, one in twenty. A
    block that stays without need does no harm; one that goes in spite of need would.
    """

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS_SHIFT - 3))

    def add(self, digest: Digest) -> None:
        """Put it in."""
        for at in _places(digest):
            self._bits[at >> 3] |= 1 << (at & 7)

    def __contains__(self, digest: bytes) -> bool:
        """Whether it was put in, or seems to have been."""
        return all(self._bits[at >> 3] >> (at & 7) & 1 for at in _places(digest))


def _places(digest: bytes) -> tuple[int, int]:
    """Digests are even already: two parts of one are as good as two hashes."""
    number = int.from_bytes(digest[:8], "big")
    return number & _MASK, (number >> 32) & _MASK
