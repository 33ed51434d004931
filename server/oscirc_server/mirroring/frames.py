"""Block files of a mirror's tree: kept as they came once they were verified, and verified whenever they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from oscirc_blockstore.digests import Digest, block_path, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, LocalError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes, stated_size
from oscirc_blockstore.table import BLOCK_SIZES
from oscirc_server.storage import Storage

BLOCKS = "blocks/sha256"
MAX_FRAME_BYTES = max_frame_bytes(BLOCK_SIZES[-1])
_SUFFIX = ".zst"


class FrameStore:
    """The block files of a tree; safe for threads. What could not be kept is raised by `check`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._problem: LocalError | None = None
        self.kept = 0
        self.kept_bytes = 0

    def keep(self, digest: Digest, frame: bytes) -> None:
        """Store a verified frame; the first of a digest stays. Raises nothing: see `check`."""
        try:
            stored = self._storage.put_if_absent(block_path(digest), frame)
        except LocalError as error:
            self._problem = error
            return
        if stored:
            with self._lock:
                self.kept += 1
                self.kept_bytes += len(frame)

    def check(self) -> None:
        """Raise what kept a frame from being stored."""
        if self._problem is not None:
            raise self._problem

    def has(self, digest: Digest) -> bool:
        """Whether there is a file of that name."""
        return self._storage.size(block_path(digest)) is not None

    def load(self, digest: Digest) -> bytes | None:
        """The verified bytes; None, and the file removed, where there are none that are right."""
        frame = self._storage.get(block_path(digest), MAX_FRAME_BYTES)
        if frame is None:
            return None
        try:
            return decode_verified(frame, stated_size(frame), digest)
        except IntegrityError:
            self._storage.remove(block_path(digest))
            return None

    def digests(self) -> Iterator[Digest]:
        """Every block file that is here; files of other names are passed over."""
        for file in self._storage.files(BLOCKS):
            digest = digest_of_path(file.path)
            if digest is not None:
                yield digest


def digest_of_path(path: str) -> Digest | None:
    """The digest that a block file is named by, None for any other path."""
    name = path.rpartition("/")[2]
    try:
        digest = parse_hex(name.removesuffix(_SUFFIX))
    except DocumentRefusedError:
        return None
    return digest if block_path(digest) == path else None
