"""Cuts a disk into blocks, builds its table and sends what a server lacks: one pass, all cores, bounded memory.

The disk's extents are cut into batches of at most 16 MiB. One worker takes a batch all the way (read, hash, ask the
server which of its blocks are missing, compress only those, send them), so that while one waits for the network
others keep the cores busy. What is new in a batch and too little to be worth two requests waits for more of it, at
most 8 MiB among all workers: so much, and a batch for each worker, is held in memory. The table is built from the
batches' digests in order, its nodes are sent as they close.

Rules:

- A block that was asked about in this run is not asked about again (up to a million of them: then memory is worth
  more than a request that the server answers rightly anyway).
- Nor is one that the version before has at the same place (`earlier_version`), unless the server lost it.
- Zero blocks have no digest to ask for and no bytes to send; holes are never read.
- The table depends on the disk's bytes and the block size only: not on extents, batches, workers or the server.
- Without a sink the same pass only hashes: what a disk's manifest would be.
- Of a disk that is changes to a released version only the changes are read (`ChangedDisk`): the rest of the table is
  taken over. The server is asked about what that names only where `base_is_there` does not say so (`shared_parts`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from oscirc_blockstore import frame
from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.disk_source import ByteRange, DiskSource, aligned
from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_blockstore.pipeline import in_order
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder, TableRoot
from oscirc_blockstore.table_editing import TableEditor
from oscirc_publisher.effort import Effort
from oscirc_publisher.shared_parts import SharedParts
from oscirc_publisher.uploading import Record, Stored

BATCH_BYTES = 16 << 20
GATHERED_BYTES = 8 << 20
MAX_WORKERS = 12
_NODES_PER_BATCH = 128
_MAX_REMEMBERED = 1 << 20

OnRead = Callable[[int, Stored], None]
"""Told after each batch: bytes read so far, and what was sent so far. Called in the caller's thread."""


class Before(Protocol):
    """What the server is known to have; `earlier_version.EarlierVersion` is one. Safe for several threads."""

    def standing(self, blocks: Iterable[tuple[int, Digest]]) -> set[Digest]:
        """Of these blocks (position, digest) those that are there."""

    def nodes(self, digests: Iterable[Digest]) -> set[Digest]:
        """Of these nodes those that are there."""


class BlockSink(Protocol):
    """Where blocks and nodes go; `uploading.Draft` is one. Safe for several threads."""

    def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those that are not there yet, in order."""

    def store(self, records: Sequence[Record]) -> Stored:
        """Keep these."""


@dataclass(frozen=True, slots=True)
class BuiltTable:
    """A disk's table, and what it took. Counts are of distinct blocks and nodes, but `data_blocks` of positions.

    Of changes to a base: `read_bytes`, `blocks` and `nodes` are those of the changes, `data_blocks` is of the disk, and
    `changed_blocks` are the positions where the two differ.
    """

    root: TableRoot
    data_blocks: int
    read_bytes: int
    blocks: int
    new_blocks: int
    nodes: int
    new_nodes: int
    uploaded: Stored
    changed_blocks: int = 0


def default_workers() -> int:
    """One for each usable core, and two to wait for the network."""
    return min(MAX_WORKERS, usable_cores() + 2)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def data_bytes(disk: DiskSource, block_size: int) -> int:
    """How many bytes a pass will read."""
    return sum(extent.size for extent in aligned(_ranges(disk), block_size, disk.size))


def _ranges(disk: DiskSource) -> Iterator[ByteRange]:
    """What has to be read of it."""
    return disk.changed() if isinstance(disk, ChangedDisk) else disk.extents()


def build_table(
    disk: DiskSource,
    geometry: Geometry,
    sink: BlockSink | None,
    *,
    effort: Effort | None = None,
    workers: int | None = None,
    stop: threading.Event | None = None,
    on_read: OnRead | None = None,
    base_is_there: bool = False,
    before: Before | None = None,
) -> BuiltTable:
    """Everything of `disk` into `sink`: blocks, and nodes as they close. What `before` has is not asked about.

    Raises whatever reading or the sink raise, after stopping the others.

    `stop` is set on failure or interruption, so that a sink which looks at it ends what it has under way. With
    `base_is_there` the sink is known to have everything of a changed disk's base.
    """
    effort = effort or Effort()
    stop, workers = stop or threading.Event(), workers or default_workers()
    cutter = _Cutter(disk, geometry, sink, effort, before if sink is not None else None)
    builder: TableBuilder | TableEditor = TableBuilder(geometry, cutter.add_node)
    shared = None
    if isinstance(disk, ChangedDisk):
        shared = SharedParts(disk, geometry) if sink is not None and not base_is_there else None
        builder = _editor(disk, geometry, cutter, shared)
    read_bytes, data_blocks, distinct, new_blocks, uploaded = 0, 0, 0, 0, Stored()
    batches = in_order(cutter.process, _batches(disk, geometry), workers=workers, stop=stop)
    with contextlib.closing(batches):
        for batch in batches:
            for position, digest in batch.blocks:
                builder.add(position, digest)
            read_bytes += batch.read_bytes
            data_blocks += sum(1 for _, digest in batch.blocks if digest != ZERO_DIGEST)
            distinct += batch.distinct
            new_blocks += batch.sent.new
            uploaded += batch.sent.uploaded
            if on_read is not None:
                on_read(read_bytes, uploaded + cutter.nodes_uploaded)
    with contextlib.closing(in_order(cutter.send_blocks, cutter.waiting(workers), workers=workers, stop=stop)) as rest:
        for sent in rest:
            new_blocks += sent.new
            uploaded += sent.uploaded
    root = builder.finish()
    cutter.send_nodes()
    built = BuiltTable(
        root=root,
        data_blocks=data_blocks,
        read_bytes=read_bytes,
        blocks=distinct,
        new_blocks=new_blocks,
        nodes=cutter.nodes,
        new_nodes=cutter.new_nodes,
        uploaded=uploaded + cutter.nodes_uploaded,
    )
    if on_read is not None:
        on_read(read_bytes, built.uploaded)
    if isinstance(disk, ChangedDisk) and isinstance(builder, TableEditor):
        data_blocks = disk.base.data_blocks + builder.added_blocks
        built = replace(built, data_blocks=data_blocks, changed_blocks=builder.changed_blocks)
    if shared is not None and sink is not None:
        shared.send(sink, effort, workers, stop)
        built = replace(
            built,
            new_blocks=built.new_blocks + shared.new_blocks,
            new_nodes=built.new_nodes + shared.new_nodes,
            uploaded=built.uploaded + shared.uploaded,
        )
    return built


def _editor(disk: ChangedDisk, geometry: Geometry, cutter: _Cutter, shared: SharedParts | None) -> TableEditor:
    """Makes the new table of the base's; raises `UsageError` for another block size than the base has."""
    base = disk.base
    if geometry != base.geometry:
        raise UsageError(
            f"the base has blocks of {base.geometry.block_size} bytes, and so have its changes",
            hint="leave --block-size out",
        )
    return TableEditor(
        geometry,
        base.root,
        lambda digest: disk.load_base(digest, NODE_SIZE),
        cutter.add_node,
        None if shared is None else shared.add,
    )


@dataclass(frozen=True, slots=True)
class _Sent:
    """How many the sink lacked, and what sending those took."""

    new: int
    uploaded: Stored


@dataclass(frozen=True, slots=True)
class _Batch:
    """The blocks of a batch by position, zeros by the zero digest; how many were not seen before, and what was sent."""

    blocks: list[tuple[int, Digest]]
    read_bytes: int
    distinct: int
    sent: _Sent


class _Cutter:
    """What the workers share: the disk, the sink, and which digests were asked about."""

    def __init__(
        self, disk: DiskSource, geometry: Geometry, sink: BlockSink | None, effort: Effort, before: Before | None
    ) -> None:
        self._disk = disk
        self._geometry = geometry
        self._sink = sink
        self._effort = effort
        self._before = before
        self._zeros = bytes(geometry.block_size)
        self._changed = disk if isinstance(disk, ChangedDisk) else None
        self._asked: set[Digest] = set()
        self._waiting: dict[Digest, bytes] = {}
        self._lock = threading.Lock()
        self._open_nodes: dict[Digest, bytes] = {}
        self.nodes = 0
        self.new_nodes = 0
        self.nodes_uploaded = Stored()

    def process(self, ranges: Sequence[ByteRange]) -> _Batch:
        """One batch, from the disk to the sink; runs in a worker."""
        blocks: list[tuple[int, Digest]] = []
        contents: dict[Digest, bytes] = {}
        read_bytes = 0
        for extent in ranges:
            for start in range(extent.start, extent.stop, self._geometry.block_size):
                size = min(self._geometry.block_size, extent.stop - start)
                if self._changed is not None and self._changed.reads_as_zeros(start, size):
                    blocks.append((start >> self._geometry.shift, ZERO_DIGEST))
                    continue
                raw = self._read_block(start)
                read_bytes += size
                digest = ZERO_DIGEST if raw == self._zeros else digest_of(raw)
                blocks.append((start >> self._geometry.shift, digest))
                if digest != ZERO_DIGEST:
                    contents[digest] = raw
        data = ((position, digest) for position, digest in blocks if digest != ZERO_DIGEST)
        there = self._before.standing(data) if self._before is not None else set[Digest]()
        distinct, new = self._new(contents, there)
        contents.clear()
        sent = self.send_blocks(self._gathered(new)) if self._sink is not None else _Sent(0, Stored())
        return _Batch(blocks, read_bytes, distinct, sent)

    def add_node(self, digest: Digest, raw: bytes) -> None:
        """A finished node, from the thread that builds the table."""
        if digest == ZERO_DIGEST:
            return
        self._open_nodes[digest] = raw
        if len(self._open_nodes) >= _NODES_PER_BATCH:
            self.send_nodes()

    def send_nodes(self) -> None:
        """Send the nodes that wait."""
        contents, self._open_nodes = self._open_nodes, {}
        there = self._before.nodes(contents) if self._before is not None else set[Digest]()
        distinct, new = self._new(contents, there)
        sent = self._send(new, NODE_SIZE)
        self.nodes += distinct
        self.new_nodes += sent.new
        self.nodes_uploaded += sent.uploaded

    def _read_block(self, start: int) -> bytes:
        size = min(self._geometry.block_size, self._geometry.disk_size - start)
        raw = self._disk.read(start, size)
        if len(raw) != size:
            raise LocalError(f"the disk gave {len(raw)} of {size} bytes at {start}")
        return raw.ljust(self._geometry.block_size, b"\0")

    def waiting(self, parts: int) -> list[dict[Digest, bytes]]:
        """The new blocks that still wait at the end, in so many parts."""
        with self._lock:
            waiting, self._waiting = list(self._waiting.items()), {}
        return [dict(waiting[number::parts]) for number in range(min(parts, len(waiting)))]

    def send_blocks(self, contents: dict[Digest, bytes]) -> _Sent:
        """Send those of these blocks that the sink lacks; runs in a worker."""
        return self._send(contents, self._geometry.block_size)

    def _new(self, contents: dict[Digest, bytes], there: set[Digest]) -> tuple[int, dict[Digest, bytes]]:
        """How many of these were not seen before in this run, and those of them that the sink may lack."""
        with self._lock:
            unseen = [digest for digest in contents if digest not in self._asked]
            if len(self._asked) < _MAX_REMEMBERED:
                self._asked.update(unseen)
        return len(unseen), {digest: contents[digest] for digest in unseen if digest not in there}

    def _gathered(self, new: dict[Digest, bytes]) -> dict[Digest, bytes]:
        """These, or with them those that wait, once they are worth a request; until then none."""
        least = GATHERED_BYTES // self._geometry.block_size
        if len(new) >= least:
            return new
        with self._lock:
            self._waiting |= new
            if len(self._waiting) < least:
                return {}
            gathered, self._waiting = self._waiting, {}
        return gathered

    def _send(self, contents: dict[Digest, bytes], raw_size: int) -> _Sent:
        """Sends what the sink lacks; empties `contents` as it goes, to hold no byte twice."""
        if self._sink is None or not contents:
            return _Sent(0, Stored())
        records = [
            Record(digest, raw_size, frame.encode(contents.pop(digest), self._effort.level(raw_size)))
            for digest in self._sink.missing(list(contents))
        ]
        contents.clear()
        return _Sent(len(records), self._sink.store(records) if records else Stored())


def _batches(disk: DiskSource, geometry: Geometry) -> Iterator[tuple[ByteRange, ...]]:
    """The disk's extents, widened to blocks and gathered or cut to batches."""
    batch: list[ByteRange] = []
    size = 0
    for extent in _pieces(aligned(_ranges(disk), geometry.block_size, disk.size)):
        if batch and size + extent.size > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(extent)
        size += extent.size
    if batch:
        yield tuple(batch)


def _pieces(extents: Iterable[ByteRange]) -> Iterator[ByteRange]:
    """The extents, none longer than a batch; cuts stand at multiples of the batch size, hence of every block size."""
    for extent in extents:
        start = extent.start
        while start < extent.stop:
            stop = min(extent.stop, (start // BATCH_BYTES + 1) * BATCH_BYTES)
            yield ByteRange(start, stop)
            start = stop
