"""Comparisons of versions, kept: two manifests and a delta pack never change, so neither does what lies between them.

One at a time is worked out, whoever asks: who waits longer than `PATIENCE_S` is told that the server is busy. Kept are
the last `KEPT` in each process, a few tens of kilobytes each. Safe for threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError
from oscirc_blockstore.manifest import Manifest
from oscirc_server.installation import Installation
from oscirc_server.services import differences
from oscirc_server.services.differences import VersionDifference

KEPT: Final = 256
PATIENCE_S: Final = 10.0

Kept = TypeVar("Kept")


class Shelf(Generic[Kept]):
    """The last results by what they follow from; each is made once, and one at a time."""

    def __init__(self, *, kept: int = KEPT, patience_s: float = PATIENCE_S) -> None:
        self._kept, self._patience_s = kept, patience_s
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._results: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """The result of that name; `BusyError` where another one takes too long."""
        found = self._find(key)
        if found is not None:
            return found
        if not self._turn.acquire(timeout=self._patience_s):
            raise BusyError("versions are being compared: ask again in a moment")
        try:
            found = self._find(key)
            if found is None:
                found = make()
                self._put(key, found)
            return found
        finally:
            self._turn.release()

    def _find(self, key: Hashable) -> Kept | None:
        with self._guard:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def _put(self, key: Hashable, made: Kept) -> None:
        with self._guard:
            self._results[key] = made
            while len(self._results) > self._kept:
                self._results.popitem(last=False)


class Comparisons:
    """What lies between two versions, from the shelf or worked out."""

    def __init__(self) -> None:
        self._shelf: Shelf[VersionDifference] = Shelf()

    def difference(
        self, installation: Installation, old: tuple[Digest, Manifest], new: tuple[Digest, Manifest]
    ) -> VersionDifference:
        """As `differences.difference`, with the pack that is listed now."""
        pack = differences.pack_of(installation, old[0], new[0])
        key = (old[0], new[0], None if pack is None else pack.sha256)
        return self._shelf.get(key, lambda: differences.difference(installation, old, new, pack))
