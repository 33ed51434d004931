"""What processes tell each other about a bundle under way: `<cache>/accel/<sha256>.stream` and `<sha256>.index`.

One process streams a bundle: whoever holds the lock of its stream file (an open-file-description lock, which the
kernel drops when its holder dies). In it stands how far the stream is. The index file holds the bundle's index, so that
the others know which blocks are coming. Both can be lost at any time; both are only hints, to processes of one user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from oscirc_blockstore.bundle import MAX_INDEX_BYTES, BundleIndex, parse_index
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import LocalError, OscircError
from oscirc_remote.arrivals import Progress
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY
from oscirc_remote.local_files import read_bytes, write_atomically

_RECORD = struct.Struct("<Qd")
_FLOCK = struct.Struct("hhqqi4x")


class StreamFiles:
    """The files of one bundle in a cache directory. One thread at a time."""

    def __init__(self, cache_directory: Path, sha256: Digest) -> None:
        directory = cache_directory / ACCELERATORS_DIRECTORY
        self._index_path = directory / f"{sha256.hex()}.index"
        self._descriptor = -1
        with contextlib.suppress(OSError):  # without them every process streams for itself
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(
                directory / f"{sha256.hex()}.stream", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )

    def try_lock(self) -> bool:
        """Become the one who streams, unless another process is."""
        if self._descriptor < 0:
            return True
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True
        return True

    def tell(self, progress: Progress) -> None:
        """How far the stream of the holder is."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, _RECORD.pack(progress.offset, progress.rate), 0)

    def told(self) -> Progress:
        """How far the holder's stream is; zero where nothing is known."""
        raw = b""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                raw = os.pread(self._descriptor, _RECORD.size, 0)
        return Progress(*_RECORD.unpack(raw)) if len(raw) == _RECORD.size else Progress(0, 0.0)

    def keep_index(self, raw: bytes) -> None:
        """Let others, and later mounts, know the index."""
        with contextlib.suppress(LocalError):
            write_atomically(self._index_path, raw, synced=False)

    def index(self) -> BundleIndex | None:
        """The index that was kept, if it is there and whole."""
        try:
            raw = read_bytes(self._index_path, MAX_INDEX_BYTES)
            return None if raw is None else parse_index(raw)
        except OscircError:
            with contextlib.suppress(OSError):
                self._index_path.unlink()
            return None

    def close(self) -> None:
        """Let go of the lock and the files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
