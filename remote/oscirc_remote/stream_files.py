"""What processes tell each other about a bundle under way: `<cache>/accel/<sha256>.stream` and `<sha256>.index`.

One process streams a bundle: whoever holds the lock of its stream file (an open-file-description lock, which the
kernel drops when its holder dies). In it stands how far the stream is. The index file holds the bundle's index, so that
the others know which blocks are coming, and later mounts what there is. It came from a mirror and may be a lie: `Told`
says which index the holder goes by, and who finds an index wrong takes it away.

Both can be lost at any time; both are only hints, to processes of one user.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.bundle import MAX_INDEX_BYTES
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_remote import ofd_locks
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY
from oscirc_remote.local_files import read_bytes, write_atomically

TAG_BYTES = 8
KEPT_S = 365 * 24 * 3600.0
_RECORD = struct.Struct(f"<QdQ{TAG_BYTES}s")


@dataclass(frozen=True, slots=True)
class Told:
    """How far the holder's stream is: bytes of the file and their rate; the entries of the index that are dealt with.

    Of those, what the cache has not will not come. `index` is the tag of the index that this is about, zeros before
    the holder knows one.
    """

    offset: int = 0
    rate: float = 0.0
    entries: int = 0
    index: bytes = bytes(TAG_BYTES)


NOTHING_TOLD = Told()


def tag(raw_index: bytes) -> bytes:
    """What tells one index from another."""
    return digest_of(raw_index)[:TAG_BYTES]


class StreamFiles:
    """The files of one bundle in a cache directory. One thread at a time."""

    def __init__(self, cache_directory: Path, sha256: Digest) -> None:
        self._directory = cache_directory / ACCELERATORS_DIRECTORY
        self._index_path = self._directory / f"{sha256.hex()}.index"
        self._given_out: tuple[int, ...] = ()
        self._descriptor = -1
        with contextlib.suppress(OSError):  # without them every process streams for itself
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(
                self._directory / f"{sha256.hex()}.stream", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )

    def try_lock(self) -> bool:
        """Become the one who streams, unless another process is; what a former holder told is forgotten then."""
        if self._descriptor < 0:
            return True
        try:
            if not ofd_locks.take(self._descriptor, ofd_locks.EXCLUSIVE, 0, 1):
                return False
        except OSError:
            return True
        self.tell(NOTHING_TOLD)
        return True

    def tell(self, told: Told) -> None:
        """How far the stream of the holder is."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, _RECORD.pack(told.offset, told.rate, told.entries, told.index), 0)

    def told(self) -> Told:
        """How far the holder's stream is; nothing where nothing, or nonsense, stands there."""
        raw = b""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                raw = os.pread(self._descriptor, _RECORD.size, 0)
        if len(raw) != _RECORD.size:
            return NOTHING_TOLD
        told = Told(*_RECORD.unpack(raw))
        return told if math.isfinite(told.rate) and told.rate >= 0 else NOTHING_TOLD

    def keep_index(self, raw: bytes) -> None:
        """Let others, and later mounts, know the index."""
        with contextlib.suppress(LocalError):
            write_atomically(self._index_path, raw, synced=False)
        self._sweep()

    def has_index(self) -> bool:
        """Whether one was kept."""
        return self._index_path.exists()

    def index(self) -> bytes | None:
        """The index that was kept, as it stands there: whoever uses it judges it."""
        try:
            return read_bytes(self._index_path, MAX_INDEX_BYTES)
        except LocalError:
            self.drop_index()
            return None

    def new_index(self) -> bytes | None:
        """The same, unless this has given it out before: one that stays wrong is not judged again and again."""
        try:
            found = self._index_path.stat()
        except OSError:
            return None
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp == self._given_out:
            return None
        self._given_out = stamp
        return self.index()

    def drop_index(self) -> None:
        """Take away one that turned out to be wrong."""
        with contextlib.suppress(OSError):
            self._index_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the lock and the files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _sweep(self) -> None:
        """Remove what bundles of versions long gone left here; a stream file is touched whenever its stream moves."""
        horizon = time.time() - KEPT_S
        with contextlib.suppress(OSError):
            for file in os.scandir(self._directory):
                with contextlib.suppress(OSError):
                    if file.stat(follow_symlinks=False).st_mtime < horizon:
                        Path(file.path).unlink()
