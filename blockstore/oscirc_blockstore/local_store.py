"""The local store: raw blocks and nodes in a directory, one file each, verified on every load.

Layout: `<root>/ab/<digest in hexadecimal>`, and `<root>/tmp/` for files that are being written. A block appears by
rename, so a reader sees all of it or nothing; a process that dies leaves at most a temporary file, swept when older
than an hour. It holds refetchable bytes only, so nothing is synced: a file that a power cut truncated fails its hash
like any other damage, is removed, counted in `damaged` and fetched again. Safe for threads and processes together.

A file's modification time says when it was last used, to six hours: what evicts goes by it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from oscirc_blockstore.digests import DIGEST_SIZE, Digest, digest_of
from oscirc_blockstore.errors import LocalError, StoreFullError
from oscirc_blockstore.table import BLOCK_SIZES, NODE_SIZE

_STALE_TEMPORARY_S = 3600
USE_NOTED_S = 6 * 3600
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIZES = (NODE_SIZE, *BLOCK_SIZES)


class LocalStore:
    """A directory of raw blocks; made with mode 0700 if absent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged = 0
        self._serial = itertools.count()
        self._lock = threading.Lock()
        self._root = str(root)
        self._making = str(root / "tmp")
        self._temporary = root / "tmp"
        try:
            self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make the store {root}: {error.strerror}") from None
        self._sweep()

    def _sweep(self) -> None:
        horizon = time.time() - _STALE_TEMPORARY_S
        for entry in os.scandir(self._temporary):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < horizon:
                    Path(entry.path).unlink()

    def path(self, digest: Digest) -> Path:
        """Where the block stands if it is here."""
        return Path(self._place(digest))

    def _place(self, digest: Digest) -> str:
        text = digest.hex()
        return f"{self._root}/{text[:2]}/{text}"

    def has(self, digest: Digest) -> bool:
        """Whether a file of that name is here (its bytes are judged by `load` only)."""
        return os.access(self._place(digest), os.F_OK)

    def holds(self, digest: Digest, size: int) -> bool:
        """The same of a file of that size: to be asked before `load` by who has the size from a stranger."""
        try:
            return os.stat(self._place(digest), follow_symlinks=False).st_size == size  # noqa: PTH116
        except OSError:
            return False

    def load(self, digest: Digest, size: int, *, counts: bool = True) -> bytes | None:
        """The verified bytes, or None when absent; a file that is not what its name says is removed.

        A load counts as a use, unless it is made to look after the store.
        """
        place = self._place(digest)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError:
            return None  # unreadable is as good as absent: the caller fetches
        try:
            raw = os.pread(descriptor, size + 1, 0)
            if counts:
                _note_use(descriptor)
        except OSError:
            raw = b""
        finally:
            os.close(descriptor)
        if len(raw) == size and digest_of(raw) == digest:
            return raw
        with self._lock:
            self.damaged += 1
        with contextlib.suppress(OSError):
            os.unlink(place)  # noqa: PTH108  # strings: this is the hot path
        return None

    def check(self, digest: Digest) -> int | None:
        """How many bytes of it are as they should be; None when it was not what its name says, and is removed.

        A block that is gone meanwhile is no damage. Does not count as a use.
        """
        try:
            size = os.stat(self._place(digest), follow_symlinks=False).st_size  # noqa: PTH116
        except OSError:
            return 0
        # a file of another size cannot be a block or a node, and may be as long as it likes: it is not read
        sound = self.load(digest, size if size in _SIZES else 0, counts=False) is not None
        return size if sound else None if not self.has(digest) else 0

    def save(self, digest: Digest, raw: bytes | memoryview) -> None:
        """Keep bytes that the caller has verified; raise `StoreFullError` or `LocalError`, leaving nothing behind."""
        place = self._place(digest)
        temporary = f"{self._making}/{os.getpid()}-{threading.get_native_id()}-{next(self._serial)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(raw)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
            try:
                os.rename(temporary, place)  # noqa: PTH104
            except FileNotFoundError:  # the first block with these two digits, or somebody cleared the cache
                Path(place).parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(temporary, place)  # noqa: PTH104
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            if error.errno in _FULL:
                raise StoreFullError(
                    f"no space left in {self.root}", hint="free space, or run: oscirc cache gc"
                ) from None
            raise LocalError(f"cannot write to {self.root}: {error.strerror}") from None

    def note_use(self, digest: Digest, when: float) -> None:
        """It was used at this time (Unix), if not later as well; absent ones are fine."""
        with contextlib.suppress(OSError):
            place = self._place(digest)
            if os.stat(place).st_mtime < when:  # noqa: PTH116  # strings: there may be a million
                os.utime(place, (when, when))

    def remove(self, digest: Digest) -> None:
        """Forget a block; absent ones are fine."""
        with contextlib.suppress(FileNotFoundError):
            self.path(digest).unlink()

    def digests(self) -> Iterator[Digest]:
        """Every block that is here, in no order; files with other names are passed over."""
        for directory in os.scandir(self.root):
            if len(directory.name) != 2 or not directory.is_dir(follow_symlinks=False):  # noqa: PLR2004
                continue
            with contextlib.suppress(FileNotFoundError):
                for file in os.scandir(directory.path):
                    if len(file.name) == 2 * DIGEST_SIZE and not file.name.strip("0123456789abcdef"):
                        yield Digest(bytes.fromhex(file.name))


def _note_use(descriptor: int) -> None:
    if os.fstat(descriptor).st_mtime < time.time() - USE_NOTED_S:
        with contextlib.suppress(OSError):  # a cache that others own, or that is read-only
            os.utime(descriptor)
