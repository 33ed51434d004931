"""A limit for what a mirror that fetches on demand keeps: what was not asked for longest goes first.

Blocks and accelerators count and may go; metadata, indexes and manifests stay. When a file was used last is its access
time, written here (file systems do not), to ten minutes; its modification time, by which readers compare files, stays.
One eviction runs at a time, down to a tenth below the limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from oscirc_server.mirroring.directory import MirrorDirectory

USE_NOTED_S = 600.0
_LOW_SHARE = 0.9
_YOUNG_S = 60.0  # what was just fetched is about to be sent
_EVICTED = ("blocks", "accel")
_log = logging.getLogger(__name__)


class TreeQuota:
    """Counts what is stored; `limit_bytes` None counts nothing. Safe for threads."""

    def __init__(self, directory: MirrorDirectory, limit_bytes: int | None) -> None:
        self._directory = directory
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._evicting = threading.Lock()
        self.stored_bytes = 0 if limit_bytes is None else sum(size for _, _, size in self._files())

    def used(self, path: str) -> bool:
        """Note that a file is wanted now; False where there is none."""
        place = f"{self._directory.tree}/{path}"
        try:
            found = os.stat(place, follow_symlinks=False)  # noqa: PTH116  (strings: every request comes here)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if self.limit_bytes is not None and found.st_atime < time.time() - USE_NOTED_S:
            with contextlib.suppress(OSError):
                os.utime(place, ns=(time.time_ns(), found.st_mtime_ns))
        return True

    def added(self, size_bytes: int) -> None:
        """A file was stored; makes room, on the caller's thread, where that was too much."""
        if self.limit_bytes is None:
            return
        with self._lock:
            self.stored_bytes += size_bytes
            full = self.stored_bytes > self.limit_bytes
        if full and self._evicting.acquire(blocking=False):
            try:
                self.evict()
            finally:
                self._evicting.release()

    def evict(self) -> int:
        """Remove what was used least recently, until what stays is a tenth below the limit; how many files went."""
        limit = self.limit_bytes
        if limit is None:
            return 0
        with self._lock:
            counted = self.stored_bytes
        files = sorted(self._files())
        stays = sum(size for _, _, size in files)
        young = time.time() - _YOUNG_S
        went = 0
        for used_s, place, size in files:
            if stays <= limit * _LOW_SHARE or used_s > young:
                break
            with contextlib.suppress(FileNotFoundError):
                Path(place).unlink()
            stays -= size
            went += 1
        with self._lock:
            self.stored_bytes = stays + self.stored_bytes - counted  # what came meanwhile counts, some of it twice
        if went:
            _log.info("evicted", extra={"files": went, "bytes": stays})
        return went

    def _files(self) -> Iterator[tuple[float, str, int]]:
        """(last use, place, size) of what may go."""
        for top in _EVICTED:
            for directory, _, names in os.walk(self._directory.tree / top):
                for name in names:
                    place = f"{directory}/{name}"
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(place, follow_symlinks=False)  # noqa: PTH116
                        yield max(found.st_atime, found.st_mtime), place, found.st_size
