"""Comparisons of versions, kept: two manifests and a delta pack never change, so neither does what lies between them.

One at a time is worked out, whoever asks: who waits longer than `PATIENCE_S`, or comes when `MOST_WAITING` wait, is
told that the server is busy, so that comparisons never hold all of the threads that answer requests. Kept are the
last `KEPT` in each process, a few tens of kilobytes each. Safe for threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Final, Generic, TypeVar

from oscirc_blockstore import package_list, packages
from oscirc_blockstore.accelerators import PACKAGES, Accelerator
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import BusyError, OscircError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.packages import PackageChange
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators, differences
from oscirc_server.services.differences import VersionDifference

KEPT: Final = 256
KEPT_LISTS: Final = 16  # of packages that differ: a megabyte or two each at most
PATIENCE_S: Final = 10.0
MOST_WAITING: Final = 4

Kept = TypeVar("Kept")


class Shelf(Generic[Kept]):
    """The last results by what they follow from; each is made once, and one at a time."""

    def __init__(self, *, kept: int = KEPT, patience_s: float = PATIENCE_S, most_waiting: int = MOST_WAITING) -> None:
        self._kept, self._patience_s = kept, patience_s
        self._guard, self._turn = threading.Lock(), threading.Lock()
        self._places = threading.BoundedSemaphore(most_waiting + 1)  # the one whose turn it is, and who waits
        self._results: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """The result of that name; `BusyError` where another one takes too long."""
        found = self._find(key)
        if found is not None:
            return found
        busy = BusyError("versions are being compared: ask again in a moment")
        if not self._places.acquire(blocking=False):
            raise busy
        try:
            if not self._turn.acquire(timeout=self._patience_s):
                raise busy
            try:
                found = self._find(key)
                if found is None:
                    found = make()
                    self._put(key, found)
                return found
            finally:
                self._turn.release()
        finally:
            self._places.release()

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
        self._packages: Shelf[tuple[PackageChange, ...]] = Shelf(kept=KEPT_LISTS)

    def difference(
        self, installation: Installation, old: tuple[Digest, Manifest], new: tuple[Digest, Manifest]
    ) -> VersionDifference:
        """As `differences.difference`, with the pack that is listed now."""
        pack = differences.pack_of(installation, old[0], new[0])
        key = (old[0], new[0], None if pack is None else pack.sha256)
        return self._shelf.get(key, lambda: differences.difference(installation, old, new, pack))

    def packages(self, installation: Installation, old: Digest, new: Digest) -> tuple[PackageChange, ...] | None:
        """Which packages differ, as publishers say; None unless both versions have a list that can be read."""
        with installation.database.read() as session:
            listed = [accelerators.listing(session, each).find(PACKAGES, package_list.NAME) for each in (old, new)]
        files = [each for each in listed if each is not None and each.length <= package_list.MAX_BYTES]
        if len(files) != len(listed):
            return None

        def read(file: Accelerator) -> Mapping[str, str]:
            raw = installation.storage.get(file.path, file.length) or b""
            verify(raw, file.sha256)
            return package_list.parse(raw).packages

        def compare() -> tuple[PackageChange, ...]:
            before, after = (read(each) for each in files)
            return tuple(packages.compare(before, after))

        try:
            return self._packages.get(tuple(each.sha256 for each in files), compare)
        except OscircError:
            return None
