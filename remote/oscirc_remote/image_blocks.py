"""The blocks of an image by position, for whoever fetches ahead: nothing here has the urgency of a read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.deadlines import Deadline
from oscirc_remote.flights import Flight
from oscirc_remote.sources import CachingSource
from oscirc_remote.table_view import TableView


class ImageBlocks:
    """`deadline()` is a new one for each fetch. Safe for threads."""

    def __init__(self, table: TableView, source: CachingSource, deadline: Callable[[], Deadline]) -> None:
        self._table = table
        self._source = source
        self._deadline = deadline
        self.block_size = table.geometry.block_size
        self.disk_size = table.geometry.disk_size
        self.count = table.geometry.block_count
        self._zeros = bytes(self.block_size)

    def digest_at(self, position: int) -> Digest | None:
        """The digest of a block with data, None for zeros; fetches the nodes on the way, and raises what that does."""
        digest = self._table.digest_at(position, self._node)
        return None if digest == ZERO_DIGEST else digest

    def is_worth(self, position: int) -> bool:
        """Whether a block with data stands there that is not on this machine, as far as is known without asking."""
        digest = self._table.digest_at(position, lambda node: self._source.resident(node, NODE_SIZE))
        return digest is not None and digest != ZERO_DIGEST and not self._source.has(digest)

    def block(self, position: int) -> bytes:
        """Its verified bytes; raises what the network does."""
        digest = self.digest_at(position)
        if digest is None:
            return self._zeros
        raw = self._source.resident(digest, self.block_size)
        return self._fly(digest, self.block_size).wait(self._deadline()) if raw is None else raw

    def fetch_all(self, positions: Iterable[int]) -> None:
        """Have these fetched at once, and wait; one that cannot be had is no error here."""
        flights = []
        for position in positions:
            digest = self.digest_at(position)
            if digest is not None and not self._source.has(digest):
                flights.append(self._fly(digest, self.block_size))
        for flight in flights:
            with contextlib.suppress(OscircError):
                flight.wait(self._deadline())

    def fetch_nodes(self, digests: Iterable[Digest]) -> None:
        """Have these nodes of the table fetched at once, and wait; one that cannot be had is no error here."""
        flights = [
            self._fly(digest, NODE_SIZE) for digest in digests if self._source.resident(digest, NODE_SIZE) is None
        ]
        for flight in flights:
            with contextlib.suppress(OscircError):
                flight.wait(self._deadline())

    def _node(self, digest: Digest) -> bytes:
        raw = self._source.resident(digest, NODE_SIZE)
        return self._fly(digest, NODE_SIZE).wait(self._deadline()) if raw is None else raw

    def _fly(self, digest: Digest, raw_size: int) -> Flight:
        return self._source.prefetch(digest, raw_size, self._deadline())
