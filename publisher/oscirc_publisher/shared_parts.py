"""What a new table takes over from its base, for a server that may lack it: asked about, and sent where it is missing.

Where the server is the one that the base came from none of this is needed. For another one every shared subtree is
walked and everything it names is asked about, a node or block once (up to a million of them); only what is missing
is fetched from the base. Memory is bounded by the workers: each has at most 16 MiB of blocks at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from oscirc_blockstore import frame
from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.pipeline import in_order
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, check_node, entry
from oscirc_publisher.effort import Effort
from oscirc_publisher.uploading import Record, Stored

_ASKED_AT_ONCE = 1024
_SENT_AT_ONCE_BYTES = 16 << 20
_MAX_REMEMBERED = 1 << 20


class Sink(Protocol):
    """Where they go; `building.BlockSink` is one."""

    def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those that are not there yet, in order."""

    def store(self, records: Sequence[Record]) -> Stored:
        """Keep these."""


class SharedParts:
    """Collects what a `TableEditor` shares (`add` is its callback), then sends what a sink lacks of it."""

    def __init__(self, disk: ChangedDisk, geometry: Geometry) -> None:
        self._disk = disk
        self._geometry = geometry
        self._tops: list[tuple[int, int, Digest]] = []
        self.new_blocks = 0
        self.new_nodes = 0
        self.uploaded = Stored()

    def add(self, level: int, index: int, digest: Digest) -> None:
        """A subtree of this level (-1: a block) that the new table shares with the base."""
        self._tops.append((level, index, digest))

    def send(self, sink: Sink, effort: Effort, workers: int, stop: threading.Event) -> None:
        """Ask about everything in them, and send what is missing; counts it."""

        def process(named: Sequence[tuple[Digest, int]]) -> tuple[int, int, Stored]:
            sizes = dict(named)
            lacking = sink.missing(list(sizes))
            uploaded, records, held = Stored(), list[Record](), 0
            for digest in lacking:
                raw = self._disk.load_base(digest, sizes[digest])
                records.append(Record(digest, len(raw), frame.encode(raw, effort.level(len(raw)))))
                held += len(raw)
                if held >= _SENT_AT_ONCE_BYTES:
                    uploaded += sink.store(records)
                    records, held = [], 0
            if records:
                uploaded += sink.store(records)
            nodes = sum(1 for digest in lacking if sizes[digest] == NODE_SIZE)
            return len(lacking) - nodes, nodes, uploaded

        with contextlib.closing(in_order(process, _groups(self._named()), workers=workers, stop=stop)) as groups:
            for blocks, nodes, uploaded in groups:
                self.new_blocks += blocks
                self.new_nodes += nodes
                self.uploaded += uploaded

    def _named(self) -> Iterator[tuple[Digest, int]]:
        """Every node and block below the tops with its size."""
        seen: set[tuple[Digest, int]] = set()
        for top in self._tops:
            pending = [top]
            while pending:
                level, index, digest = pending.pop()
                place = (digest, level)
                if digest == ZERO_DIGEST or place in seen:
                    continue
                if level >= 0 or len(seen) < _MAX_REMEMBERED:
                    seen.add(place)
                if level < 0:
                    yield digest, self._geometry.block_size
                    continue
                yield digest, NODE_SIZE
                node = check_node(self._disk.load_base(digest, NODE_SIZE), self._geometry, level, index)
                pending += [(level - 1, index * FANOUT + slot, entry(node, slot)) for slot in range(FANOUT)]


def _groups(named: Iterator[tuple[Digest, int]]) -> Iterator[list[tuple[Digest, int]]]:
    while group := list(itertools.islice(named, _ASKED_AT_ONCE)):
        yield group
