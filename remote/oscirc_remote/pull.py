"""Fetches all of an image into the cache: its table's nodes and its distinct blocks.

What the cache has is passed over, so a pull that was interrupted goes on where it stopped. Blocks are judged when
they are loaded, not here: `has` is enough to pass one over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import StoreFullError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.sources import CachingSource
from oscirc_remote.table_view import TableView, entries

PARALLELISM = 8
PATIENCE_S = 60.0

Progress = Callable[[int, int], None]
"""Told (positions done, positions with data in all) after each step; positions times block size are bytes of disk."""


@dataclass(frozen=True, slots=True)
class PullCounts:
    """What a pull did, this time. `positions` with data were gone through; the rest counts downloads."""

    positions: int
    fetched_blocks: int
    fetched_nodes: int
    received_bytes: int


def pull(
    manifest: Manifest,
    source: CachingSource,
    *,
    progress: Progress = lambda _done, _total: None,
    parallelism: int = PARALLELISM,
    patience_s: float = PATIENCE_S,
    cancellation: Cancellation | None = None,
) -> PullCounts:
    """Bring every node and block of `manifest` into the cache behind `source`.

    Each block is tried for `patience_s`; then the pull ends with its `TransportError` (run it again to go on), and
    with `StoreFullError` as soon as the cache keeps nothing more.
    """
    before = source.status()
    run = _Pull(manifest, source, progress, parallelism, patience_s, cancellation or Cancellation())
    run.finish()
    after = source.status()
    return PullCounts(
        positions=run.done,
        fetched_blocks=after.fetched_blocks - before.fetched_blocks,
        fetched_nodes=after.fetched_nodes - before.fetched_nodes,
        received_bytes=sum(mirror.received_bytes for mirror in after.mirrors)
        - sum(mirror.received_bytes for mirror in before.mirrors),
    )


@dataclass(slots=True)
class _Pull:
    """One pull under way; `done` counts the positions gone through."""

    manifest: Manifest
    source: CachingSource
    progress: Progress
    parallelism: int
    patience_s: float
    cancellation: Cancellation
    done: int = 0
    leaves: dict[Digest, int] = field(default_factory=dict)  # those gone through, with their number of positions

    def finish(self) -> None:
        block_size = self.manifest.geometry.block_size
        for digest, _ in self.source.fetch_each(self._missing(), block_size, self._deadline, self.parallelism):
            self._check_kept(digest)
            self.progress(self.done, self.manifest.data_blocks)
        self.progress(self.done, self.manifest.data_blocks)

    def _missing(self) -> Iterator[Digest]:
        """The blocks that the cache lacks, by position; loads the nodes on the way."""
        table = TableView(self.manifest.geometry, self.manifest.root)
        for name, leaf in table.leaves(self._load_node, self._prepare_nodes):
            known = self.leaves.get(name)
            if known is not None:
                self.done += known
                continue
            start = self.done
            for digest in entries(leaf):
                self.done += 1
                if not self.source.has(digest):
                    yield digest
            self.leaves[name] = self.done - start
            self.progress(self.done, self.manifest.data_blocks)

    def _load_node(self, digest: Digest) -> bytes:
        node = self.source.fetch(digest, NODE_SIZE, self._deadline())
        self._check_kept(digest)
        return node

    def _prepare_nodes(self, digests: Sequence[Digest]) -> None:
        for digest, _ in self.source.fetch_each(digests, NODE_SIZE, self._deadline, self.parallelism):
            self._check_kept(digest)

    def _deadline(self) -> Deadline:
        return Deadline.after(self.patience_s, self.cancellation)

    def _check_kept(self, digest: Digest) -> None:
        if not self.source.has(digest):
            raise StoreFullError(
                f"the cache keeps nothing more: {self.source.status().last_write_problem or 'no reason is known'}",
                hint="see oscirc pins, free space, raise cache_limit, or run: oscirc cache gc",
            )
