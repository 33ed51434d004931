"""A released version as the base of something new: its nodes and blocks by digest, and its bytes by place.

For whoever can wait (a publisher): every fetch has a minute. Nothing is fetched ahead. Everything has been verified
against the manifest, and is counted, so that what was taken from the base can be told and tested.
"""

from __future__ import annotations

import threading
from pathlib import Path

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import paths
from oscirc_remote.cache import CachedSource
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import Deadline
from oscirc_remote.opening import open_source
from oscirc_remote.resolving import Resolved
from oscirc_remote.table_view import TableView

FETCH_S = 60.0


class _Recent(threading.local):
    """The block that a thread read last."""

    digest: Digest = ZERO_DIGEST
    raw: bytes = b""


class BaseImage:
    """Reads one version. Safe for threads. It owns `source` and closes it."""

    def __init__(self, manifest: Manifest, source: CachedSource) -> None:
        self.manifest = manifest
        self._source = source
        self._table = TableView(manifest.geometry, manifest.root)
        self._counters = Counters("block_loads", "node_loads", "read_bytes")
        self._recent = _Recent()

    def load(self, digest: Digest, raw_size: int) -> bytes:
        """A node (of `NODE_SIZE`) or a block of the version by digest."""
        self._counters.add("node_loads" if raw_size == NODE_SIZE else "block_loads")
        return self._source.fetch(digest, raw_size, Deadline.after(FETCH_S))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes of the version's disk, fewer only at its end."""
        geometry = self.manifest.geometry
        stop = min(offset + size, geometry.disk_size)
        parts = []
        while offset < stop:
            position, within = divmod(offset, geometry.block_size)
            size = min(geometry.block_size - within, stop - offset)
            digest = self._table.digest_at(position, lambda node: self.load(node, NODE_SIZE)) or ZERO_DIGEST
            if digest == ZERO_DIGEST:
                parts.append(bytes(size))
            else:
                if self._recent.digest != digest:  # what stands before a change, then what stands after it
                    self._recent.raw = self.load(digest, geometry.block_size)
                    self._recent.digest = digest
                parts.append(self._recent.raw[within : within + size])
                self._counters.add("read_bytes", size)
            offset += size
        return b"".join(parts)

    def counts(self) -> dict[str, int]:
        """How many blocks and nodes were loaded, and how many bytes of its data were read, so far."""
        return self._counters.snapshot()

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()


def open_base(resolved: Resolved, cache_directory: Path | None = None) -> BaseImage:
    """The version that was resolved, through the user's cache; close it when done."""
    directory = cache_directory or paths.cache_directory()
    return BaseImage(resolved.manifest, open_source(resolved.remote.sources(), directory))
