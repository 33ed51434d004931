"""Copies all blocks and nodes of a version into a mirror's tree, several at once; what is there is passed over.

The tables of versions share subtrees: a leaf that was gone through once in a run is not gone through again. A few
requests are under way at a time and no more is held in memory, however large the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DigestMismatchError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.table_view import TableView, entries
from oscirc_server.mirroring.frames import FrameStore
from oscirc_server.mirroring.upstream import Upstream

PATIENCE_S = 60.0
_WINDOW_PER_JOB = 2


class Copier:
    """One for a run; `fetched` is called with the bytes of disk that each step brought nearer. Close it when done."""

    def __init__(
        self, frames: FrameStore, upstream: Upstream, jobs: int, progressed: Callable[[int], object] = lambda _: None
    ) -> None:
        self._frames = frames
        self._upstream = upstream
        self._window = jobs * _WINDOW_PER_JOB
        self._progressed = progressed
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="oscirc-mirror-copy")
        self._leaves: set[tuple[Digest, int]] = set()

    def copy(self, manifest: Manifest) -> None:
        """Return when every node and block of the version is stored, or raise what prevents it."""
        block_size = manifest.geometry.block_size
        table = TableView(manifest.geometry, manifest.root, remembered_nodes=1)
        for name, leaf in table.leaves(self._node, self._prepare):
            blocks = list(entries(leaf))
            if (name, block_size) not in self._leaves:
                self._fetch_all(dict.fromkeys(blocks), block_size)
                self._leaves.add((name, block_size))
            self._progressed(len(blocks) * block_size)

    def _node(self, digest: Digest) -> bytes:
        raw = self._frames.load(digest)
        if raw is None:
            self._fetch(digest, NODE_SIZE)
            raw = self._frames.load(digest)
        if raw is None or len(raw) != NODE_SIZE:
            raise DigestMismatchError(f"the node {digest.hex()} was stored and cannot be read back")
        return raw

    def _prepare(self, digests: Sequence[Digest]) -> None:
        """The children of a node, told before they are needed; whether they are nodes is known by their parent."""
        self._fetch_all(digests, NODE_SIZE)

    def _fetch_all(self, digests: Iterable[Digest], raw_size: int) -> None:
        under_way: deque[Future[None]] = deque()
        try:
            for digest in digests:
                if self._frames.has(digest):
                    continue
                under_way.append(self._pool.submit(self._fetch, digest, raw_size))
                if len(under_way) >= self._window:
                    under_way.popleft().result()
            while under_way:
                under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def _fetch(self, digest: Digest, raw_size: int) -> None:
        self._upstream.block(digest, raw_size, PATIENCE_S)
        self._frames.check()

    def close(self) -> None:
        """Begin nothing more; who closes it has called off what is under way."""
        self._pool.shutdown(cancel_futures=True)
