"""A cache bounded in bytes that forgets what was used longest ago. Holds verified blocks and nodes by digest."""

from __future__ import annotations

import threading
from collections import OrderedDict

from oscirc_blockstore.digests import Digest


class ByteBoundedCache:
    """At most `max_bytes` of values; one that alone is larger is not kept. Safe for threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[Digest, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of values held now."""
        return self._bytes

    def get(self, digest: Digest) -> bytes | None:
        """The value, which thereby was used last, or None."""
        with self._lock:
            raw = self._held.get(digest)
            if raw is not None:
                self._held.move_to_end(digest)
            return raw

    def put(self, digest: Digest, raw: bytes) -> None:
        """Keep a value and forget others until all fit."""
        if len(raw) > self._max_bytes:
            return
        with self._lock:
            previous = self._held.pop(digest, b"")
            self._held[digest] = raw
            self._bytes += len(raw) - len(previous)
            while self._bytes > self._max_bytes:
                _, forgotten = self._held.popitem(last=False)
                self._bytes -= len(forgotten)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0
