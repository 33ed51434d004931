"""Makes room in the cache: what nobody needs goes, least recently used first. Reasons: ADR 10.

Two passes over the store with constant memory, whatever its size: sizes by age, then removal of what is older than the
age that frees enough. What pins, uses and instances need is found by their tables, as far as those are here: what a
node that is missing names cannot be read without fetching anyway.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import LocalError, TableRefusedError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.cache_layout import STORE_DIRECTORY
from oscirc_remote.table_view import TableView, entries

LOCK_FILE = "eviction.lock"
LOW_WATER = 0.9
_AGE_UNIT_S = 900
_KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction found and did, in bytes and files. `needed` must stay; `busy`: another one is at work."""

    bytes_before: int = 0
    files_before: int = 0
    bytes_freed: int = 0
    files_freed: int = 0
    needed_bytes: int = 0
    needed_files: int = 0
    busy: bool = False

    @property
    def bytes_left(self) -> int:
        """What stands there now."""
        return self.bytes_before - self.bytes_freed


class _File(NamedTuple):
    path: str
    key: int
    size: int
    used: float
    age: int


def needed_digests(manifest: Manifest, store: LocalStore) -> Iterator[Digest]:
    """Every node and block of an image, as far as its nodes are in the store; some may come more than once."""
    nodes: list[Digest] = []

    def load(digest: Digest) -> bytes | None:
        nodes.append(digest)
        return store.load(digest, NODE_SIZE)

    if manifest.root.digest != ZERO_DIGEST:
        with contextlib.suppress(TableRefusedError):  # no reader gets further than this either
            for _, leaf in TableView(manifest.geometry, manifest.root).leaves(load, nodes.extend):
                yield from entries(leaf)
        yield from nodes


class Evictor:
    """Evicts from the store in a cache directory; `needed` gives what must stay, asked anew each time."""

    def __init__(self, cache_directory: Path, needed: Callable[[], Iterable[Manifest]]) -> None:
        self._directory = cache_directory
        self._store = LocalStore(cache_directory / STORE_DIRECTORY)
        self._needed = needed

    def run(self, limit_bytes: int, *, low_water: float = LOW_WATER, dry_run: bool = False) -> Evicted:
        """Bring the store below the limit, or as far as what is needed lets it: to `low_water` of it, for some peace.

        Nothing is removed while another evictor is at work, nor what was written or read since this one began. Raises
        what `needed` raises, before anything is removed.
        """
        began = time.time()
        with self._alone() as alone:
            if not alone:
                return Evicted(busy=True)
            needed = {_key(digest) for manifest in self._needed() for digest in needed_digests(manifest, self._store)}
            ages: Counter[int] = Counter()
            total = files = needed_bytes = needed_files = 0
            for file in self._files():
                total += file.size
                files += 1
                if file.key in needed:
                    needed_bytes += file.size
                    needed_files += 1
                else:
                    ages[file.age] += file.size
            target = total - int(low_water * limit_bytes) if total > limit_bytes else 0
            freed, count = self._remove(needed, ages, target, began, dry_run=dry_run)
            return Evicted(total, files, freed, count, needed_bytes, needed_files)

    def _remove(
        self, needed: set[int], ages: Counter[int], target: int, began: float, *, dry_run: bool
    ) -> tuple[int, int]:
        reached, youngest = 0, 0
        for age in sorted(ages, reverse=True):
            if reached >= target:
                break
            reached += ages[age]
            youngest = age
        freed = count = 0
        for file in self._files() if target > 0 else ():
            goes = file.age >= youngest and file.used < began and file.key not in needed
            if goes and freed < target:
                if not dry_run:
                    try:
                        os.unlink(file.path)  # noqa: PTH108  # strings: there may be a million
                    except OSError:
                        continue
                freed += file.size
                count += 1
        return freed, count

    def _files(self) -> Iterator[_File]:
        now = time.time()
        for directory in os.scandir(self._store.root):
            if len(directory.name) != 2:  # noqa: PLR2004  # the first byte of a digest
                continue
            with contextlib.suppress(OSError):
                for file in os.scandir(directory.path):
                    with contextlib.suppress(OSError, ValueError):
                        status = file.stat(follow_symlinks=False)
                        key = int(file.name[: 2 * _KEY_BYTES], 16)
                        age = max(0, int(now - status.st_mtime)) // _AGE_UNIT_S
                        yield _File(file.path, key, status.st_size, status.st_mtime, age)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        try:
            descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"cannot lock {self._directory / LOCK_FILE}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def _key(digest: Digest) -> int:
    return int.from_bytes(digest[:_KEY_BYTES], "big")
