"""Why each block was fetched in this process, and which of those that nobody had asked for were used after all."""

from __future__ import annotations

import threading
from enum import IntEnum

from oscirc_blockstore.digests import Digest

REMEMBERED = 1_000_000


class Origin(IntEnum):
    """Why a block was fetched."""

    DEMAND = 1
    AHEAD = 2


class Origins:
    """Of at most `REMEMBERED` blocks; those that come later are not told apart. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[Digest, Origin] = {}
        self._unused: set[Digest] = set()
        self.hits = 0

    def fetched(self, digest: Digest, origin: Origin) -> None:
        """A block came."""
        with self._lock:
            if len(self._of) < REMEMBERED:
                self._of[digest] = origin
                if origin is Origin.AHEAD:
                    self._unused.add(digest)

    def used(self, digest: Digest) -> None:
        """A read wanted it."""
        if digest in self._unused:
            with self._lock:
                if digest in self._unused:
                    self._unused.remove(digest)
                    self.hits += 1

    def of(self, digest: Digest) -> Origin | None:
        """Why it was fetched, if it was."""
        return self._of.get(digest)

    def unused(self, digest: Digest) -> bool:
        """Whether it was fetched ahead, and no read has wanted it so far."""
        return digest in self._unused
