"""Blocks and nodes as the server's own store has them, verified: what jobs are made of."""

from __future__ import annotations

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import NotFoundError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_server.storage import Storage


class StoredBlocks:
    """Safe for threads, as the storage is."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def load(self, digest: Digest, raw_size: int) -> bytes:
        """The bytes of that digest; `NotFoundError`, or an `IntegrityError` where what is stored is not it."""
        frame = self._storage.get(block_path(digest), max_frame_bytes(raw_size))
        if frame is None:
            raise NotFoundError(f"{digest.hex()} is not in the store")
        return decode_verified(frame, raw_size, digest)
