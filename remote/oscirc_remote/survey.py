"""Counts how much of an image is in the cache, for a status that is asked for often and may take a moment at most."""

from __future__ import annotations

import time
from collections.abc import Callable

from oscirc_blockstore.digests import Digest
from oscirc_remote.table_view import LoadNode, TableView, entries

SURVEY_S = 2.0
HOLD_FACTOR = 10


class Survey:
    """Of one image. `has` says whether a block is in the store; `resident_node` gives the nodes that are here."""

    def __init__(self, table: TableView, resident_node: LoadNode, has: Callable[[Digest], bool]) -> None:
        self._table = table
        self._resident_node = resident_node
        self._has = has
        self._valid_until, self._found = 0.0, (0, False)

    def look(self) -> tuple[int, bool]:
        """How many positions with data stand in the cache, and whether all were looked at.

        An answer is given again for ten times as long as it took to find.
        """
        started = time.monotonic()
        if started < self._valid_until:
            return self._found
        cached, complete = 0, True

        def load(digest: Digest) -> bytes | None:
            nonlocal complete
            node = self._resident_node(digest)
            complete = complete and node is not None
            return node

        for _, leaf in self._table.leaves(load):
            cached += sum(map(self._has, entries(leaf)))
            if time.monotonic() > started + SURVEY_S:
                complete = False
                break
        self._found = cached, complete
        self._valid_until = time.monotonic() + HOLD_FACTOR * (time.monotonic() - started)
        return self._found
