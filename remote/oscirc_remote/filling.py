"""Fetches all that is missing of an image, one block after another, while nobody waits: until it is complete.

Each block has the urgency FILL, so that reads and what is fetched ahead go first. What fails and may heal is tried
again, with pauses, until it is called off. The rate is of raw bytes.
"""

from __future__ import annotations

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import TransportError
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.rate_limits import RateLimit
from oscirc_remote.sources import Urgency
from oscirc_remote.table_view import TableView, entries

BLOCK_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class Filler:
    """Fills the cache of `source`; `bytes_per_s` 0: as fast as it comes. One thread."""

    def __init__(self, source: CachedSource, cancellation: Cancellation, bytes_per_s: float = 0.0) -> None:
        self._source = source
        self._cancellation = cancellation
        self._limit = RateLimit(bytes_per_s) if bytes_per_s > 0 else None
        self._pause_s = FIRST_PAUSE_S
        self._seen: set[Digest] = set()

    def fill(self, table: TableView) -> str:
        """Until all is here, the cache keeps nothing more (returns why; else nothing), or it is called off.

        Raises what will not heal.
        """
        for _, leaf in table.leaves(self._node):
            for digest in entries(leaf):
                if self._source.has(digest):
                    continue
                if self._obtain(digest, table.geometry.block_size) is None:
                    return ""
                if not self._source.has(digest):
                    return f"the cache keeps nothing more: {self._source.status().last_write_problem}"
        return ""

    def _node(self, digest: Digest) -> bytes | None:
        if digest in self._seen:  # a table that repeats itself is gone through once
            return None
        self._seen.add(digest)
        return self._source.resident(digest, NODE_SIZE) or self._obtain(digest, NODE_SIZE)

    def _obtain(self, digest: Digest, size: int) -> bytes | None:
        """The bytes, however long it takes; None when it was called off."""
        while not self._cancellation.reason:
            try:
                raw = self._source.prefetch(digest, size, self._deadline(), Urgency.FILL).wait(self._deadline())
            except TransportError as error:
                if not error.retryable:
                    raise
                self._deadline().pause(self._pause_s)
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
                continue
            self._pause_s = FIRST_PAUSE_S
            if self._limit is not None:
                self._limit.spend(size, self._deadline())
            return raw
        return None

    def _deadline(self) -> Deadline:
        return Deadline.after(BLOCK_S, self._cancellation)
