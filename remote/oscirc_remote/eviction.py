"""Makes room in the cache: what nobody needs goes, least recently used first. Reasons: ADR 10.

Rules:

- Two passes over the store with constant memory, whatever its size: sizes by age, then removal of what is older than
  the age that frees enough.
- What is in use, and what `needed` names besides (pins, bases of instances), stays. It is asked for anew before each
  batch of files is removed, while nobody can begin to use or to pin (`uses`): so nothing that is here when an image
  comes into use goes before that ends.
- An image whose use has ended was used as a whole until then: its files are dated so before anything is compared.
- Nothing is removed that came or was read since the eviction began, nor while another evictor is at work.
- Only regular files in the store's own directories are looked at.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from oscirc_blockstore.digests import DIGEST_SIZE, Digest
from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest
from oscirc_remote import uses
from oscirc_remote.cache_layout import STORE_DIRECTORY
from oscirc_remote.needed import DigestFilter, needed_digests

LOCK_FILE = "eviction.lock"
LOW_WATER = 0.9
BATCH_FILES = 1000
_AGE_UNIT_S = 900
MOST_TURNS = 100
_TICK_S = 0.02  # how much older than now a file may look that was written now: the kernel's clock of files is coarse


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
    digest: Digest
    size: int
    used: float
    age: int


class Evictor:
    """Evicts from the store in a cache directory; `needed` gives what must stay besides what is in use, now."""

    def __init__(self, cache_directory: Path, needed: Callable[[], Iterable[Manifest]]) -> None:
        self._directory = cache_directory
        self._store = LocalStore(cache_directory / STORE_DIRECTORY)
        self._needed = needed

    def run(self, limit_bytes: int, *, low_water: float = LOW_WATER, dry_run: bool = False) -> Evicted:
        """Bring the store below the limit, or as far as what is needed lets it: to `low_water` of it, for some peace.

        With `dry_run`, say what would go. Raises what `needed` raises, before anything is removed, and `BusyError`
        when it cannot be known what is in use.
        """
        with self._alone(dry_run=dry_run) as alone:
            if not alone:
                return Evicted(busy=True)
            if not dry_run:
                self._date_ended_uses()
            return _Run(self._directory, self._store, self._needed, dry_run=dry_run).bring_below(limit_bytes, low_water)

    def _date_ended_uses(self) -> None:
        over = uses.ended(self._directory)
        for use in over:
            for digest in needed_digests(use.manifest, self._store) if use.manifest else ():
                self._store.note_use(digest, use.last_used)
        if over:
            with uses.evicting(self._directory):
                for use in over:
                    uses.forget(self._directory, use)

    @contextlib.contextmanager
    def _alone(self, *, dry_run: bool) -> Iterator[bool]:
        if dry_run:
            yield True
            return
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


class _Run:
    """One eviction."""

    def __init__(
        self, directory: Path, store: LocalStore, needed: Callable[[], Iterable[Manifest]], *, dry_run: bool
    ) -> None:
        self._directory = directory
        self._store = store
        self._needed = needed
        self._dry_run = dry_run
        self._began = time.time()
        self._stays = DigestFilter()
        self._known: set[Manifest] = set()
        self._incomplete: dict[Manifest, list[Digest]] = {}  # the nodes that are not here: they may be coming just now
        self._freed = self._count = 0

    def bring_below(self, limit_bytes: int, low_water: float) -> Evicted:
        with uses.evicting(self._directory):
            news = self._news()
        self._keep(news)
        ages: Counter[int] = Counter()
        total = files = needed_bytes = needed_files = 0
        for file in self._files():
            total += file.size
            files += 1
            if file.digest in self._stays:
                needed_bytes += file.size
                needed_files += 1
            else:
                ages[file.age] += file.size
        if total > limit_bytes:
            self._remove(ages, total - int(low_water * limit_bytes))
        return Evicted(total, files, self._freed, self._count, needed_bytes, needed_files)

    def _news(self) -> list[Manifest]:
        """The manifests that are needed and were not known to be."""
        asked = [*uses.used(self._directory), *self._needed()]
        news = [manifest for manifest in dict.fromkeys(asked) if manifest not in self._known]
        self._known.update(news)
        return news

    def _keep(self, manifests: Iterable[Manifest]) -> None:
        for manifest in manifests:
            missing: list[Digest] = []
            for digest in needed_digests(manifest, self._store, missing.append):
                self._stays.add(digest)
            if missing:
                self._incomplete[manifest] = missing

    def _remove(self, ages: Counter[int], target: int) -> None:
        reached = youngest = 0
        for age in sorted(ages, reverse=True):
            if reached >= target:
                break
            reached += ages[age]
            youngest = age
        batch: list[_File] = []
        pending = 0
        for file in self._files():
            if self._freed + pending >= target:
                break
            if file.age < youngest or self._is_recent(file.used) or file.digest in self._stays:
                continue
            batch.append(file)
            pending += file.size
            if len(batch) >= BATCH_FILES:
                self._remove_batch(batch)
                batch, pending = [], 0
        self._remove_batch(batch)

    def _remove_batch(self, batch: list[_File]) -> None:
        """Remove these but for what has come into need or was used meanwhile."""
        if self._dry_run or not batch:
            self._freed += sum(file.size for file in batch)
            self._count += len(batch)
            return
        for _ in range(MOST_TURNS):
            with uses.evicting(self._directory):
                news = [*self._news(), *self._grown()]
                if not news:
                    self._unlink(batch)
                    return
            self._keep(news)  # tables are gone through while nobody waits for the gate, then all is asked again
        raise BusyError("too much comes into use while the cache makes room", hint="try again in a moment")

    def _grown(self) -> list[Manifest]:
        """The manifests of whose tables more is here than was."""
        grown = [each for each, missing in self._incomplete.items() if any(map(self._store.has, missing))]
        for each in grown:
            del self._incomplete[each]
        return grown

    def _unlink(self, batch: list[_File]) -> None:
        for file in batch:
            if file.digest not in self._stays:
                with contextlib.suppress(OSError):
                    if os.stat(file.path, follow_symlinks=False).st_mtime != file.used:  # noqa: PTH116
                        continue
                    os.unlink(file.path)  # noqa: PTH108  # strings: there may be a million
                    self._freed += file.size
                    self._count += 1

    def _is_recent(self, used: float) -> bool:
        """Since this began; a file from the future is one that a wrong clock dated."""
        return self._began - _TICK_S <= used <= time.time() + _TICK_S

    def _files(self) -> Iterator[_File]:
        now = time.time()
        with os.scandir(self._store.root) as found:
            places = [place.path for place in found if len(place.name) == 2 and place.is_dir(follow_symlinks=False)]  # noqa: PLR2004
        for place in places:
            with contextlib.suppress(OSError), os.scandir(place) as files:
                for file in files:
                    with contextlib.suppress(OSError, ValueError):
                        digest, status = bytes.fromhex(file.name), file.stat(follow_symlinks=False)
                        if len(digest) == DIGEST_SIZE and stat.S_ISREG(status.st_mode):
                            age = max(0, int(now - status.st_mtime)) // _AGE_UNIT_S
                            yield _File(file.path, Digest(digest), status.st_size, status.st_mtime, age)
