"""Blocks from delta packs: between the cache and the mirrors, where old blocks are here and a record is cheaper.

What a pack brings counts only where it hashes to the digest that was asked for. So nothing that goes wrong here is an
error of reading: the block is fetched whole then, and it is counted why.

A record has no name of its own by which one could tell who lied: its maker, who served the index, or who served it.
So where it makes no right block another mirror is asked for it. Where that one's does, the first is told off, as for a
wrong block; else it counts against the pack, which is used no more after several, and its index is not kept.

Nor may a pack that nobody serves any more slow every read down: all packs together have half of a read's time, and
one whose records could not be had several times in a row rests for a moment before it is asked for again.

The store is asked for an old block only where it has one of the right size: it takes a file of another size than it was
asked for to be damaged, so that a pack that calls blocks nodes would empty the cache.

Safe for threads: packs are added, never changed; each fetch runs on its caller's thread, under its caller's deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from oscirc_blockstore import delta_record
from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.delta import DeltaIndex, Record
from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import (
    DigestMismatchError,
    FrameRefusedError,
    IntegrityError,
    NotServedError,
    OscircError,
    TransportError,
)
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.bundle_mirrors import Part
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import Clock, Deadline
from oscirc_remote.pack_runs import PackRuns
from oscirc_remote.sources import BlockSource
from oscirc_remote.status import MirrorStatus, PackStatus

MOST_PACKS = 2
MOST_REFUSED = 3
MOST_FAILED, REST_S = 3, 5.0


class RangeSource(Protocol):
    """Parts of accelerators, from whoever has them."""

    def get_part(
        self,
        accelerator: Accelerator,
        start: int,
        stop: int,
        deadline: Deadline,
        *,
        skip: frozenset[str] = frozenset(),
    ) -> Part:
        """Exactly these bytes of the file, unverified, from a mirror not to be skipped, or a `TransportError`."""

    def report(self, name: str, problem: OscircError | None) -> None:
        """What a mirror did that was wrong."""

    @property
    def requests(self) -> int:
        """Requests sent so far."""

    @property
    def received_bytes(self) -> int:
        """Bytes received so far."""

    def close(self) -> None:
        """End what is under way, and begin nothing more."""


class WindowedSource(BlockSource, Protocol):
    """A block source that knows its link."""

    def window(self) -> int:
        """How many blocks that nobody waits for may be under way at once."""


class OldBlocks(Protocol):
    """What this machine has: the store of the cache."""

    def holds(self, digest: Digest, size: int) -> bool:
        """Whether it claims to have it, in that size."""

    def load(self, digest: Digest, raw_size: int) -> bytes | None:
        """The verified bytes, None where they are not there."""


@dataclass(slots=True)
class _Pack:
    """A pack in use; `refused` counts its records that proved wrong, `failed` requests in a row that brought none."""

    accelerator: Accelerator
    index: DeltaIndex
    on_distrust: Callable[[], None]
    runs: PackRuns | None = None
    refused: int = 0
    failed: int = 0
    rests_until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_trusted(self) -> bool:
        """Whether it is worth asking again."""
        return self.refused < MOST_REFUSED

    def refuse(self) -> None:
        """Another record was wrong."""
        with self.lock:
            self.refused += 1
            last = self.refused == MOST_REFUSED
        if last:
            self.on_distrust()

    def note(self, clock: Clock, *, failed: bool) -> None:
        """Whether a record could be had."""
        with self.lock:
            self.failed = self.failed + 1 if failed else 0
            if self.failed >= MOST_FAILED:
                self.rests_until = clock.monotonic() + REST_S

    def rests(self, clock: Clock) -> bool:
        """Whether nothing is to be asked for at the moment."""
        return self.failed >= MOST_FAILED and clock.monotonic() < self.rests_until


class PackSource:
    """A `BlockSource` in front of `inner`, to which everything goes that no pack makes cheaper."""

    def __init__(
        self, inner: WindowedSource, ranges: RangeSource, store: OldBlocks, *, wants_all: bool = False
    ) -> None:
        """`wants_all`: all that a pack makes will be asked for, so that records are fetched several at once."""
        self._wants_all = wants_all
        self._inner = inner
        self._ranges = ranges
        self._store = store
        self._packs: tuple[_Pack, ...] = ()
        self._lock = threading.Lock()
        self._counters = Counters(
            "rebuilt_blocks",
            "rebuilt_nodes",
            "record_bytes",
            "saved_bytes",
            "refused_packs",
            "refused_records",
            "failed_records",
        )

    @property
    def is_full(self) -> bool:
        """Whether no more packs are taken."""
        return len(self._packs) >= MOST_PACKS

    def use(self, accelerator: Accelerator, index: DeltaIndex, on_distrust: Callable[[], None] = lambda: None) -> None:
        """From now on, look into this pack; once it is in use that changes nothing.

        `on_distrust` is called, from the thread of a fetch, when it proved wrong too often.
        """
        with self._lock:
            known = {pack.accelerator.sha256 for pack in self._packs}
            if accelerator.sha256 not in known and len(self._packs) < MOST_PACKS:
                pack = _Pack(accelerator, index, on_distrust)
                if self._wants_all:
                    pack.runs = self._runs(pack)
                self._packs = (*self._packs, pack)

    def refuse(self) -> None:
        """Count a pack whose head or index is wrong: it is not used, and blocks come whole."""
        self._counters.add("refused_packs")

    def _runs(self, pack: _Pack) -> PackRuns:
        def is_wanted(record: Record) -> bool:
            return self._is_usable(pack, record) and not self._store.holds(record.digest, record.block_size)

        def fetch(start: int, stop: int, deadline: Deadline) -> Part:
            return self._ranges.get_part(pack.accelerator, start, stop, deadline)

        return PackRuns(tuple(pack.index.records.values()), is_wanted, fetch)

    def uses(self, accelerator: Accelerator) -> bool:
        """Whether this pack is in use."""
        return any(pack.accelerator.sha256 == accelerator.sha256 for pack in self._packs)

    def fetch(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        """The block or node: from a pack where that is cheaper, else whole; raises what `inner` raises."""
        share = deadline.at_most(deadline.remaining_s() / 2)
        for pack in self._packs:
            if not pack.is_trusted:
                continue
            made = self._node(pack, digest) if raw_size == NODE_SIZE else self._block(pack, digest, share)
            if made is not None:
                return made
        return self._inner.fetch(digest, raw_size, deadline)

    def window(self) -> int:
        """How many blocks that nobody waits for may be under way at once."""
        return self._inner.window()

    def cost(self, digest: Digest, raw_size: int) -> int | None:
        """What fetching it will move in bytes, heads aside, as far as packs tell: 0 for a node that they make."""
        costs = []
        for pack in self._packs:
            if raw_size == NODE_SIZE:
                patch = pack.index.nodes.get(digest)
                if patch is not None and self._has_base(patch.base):
                    return 0
                continue
            record = pack.index.records.get(digest)
            if record is not None:
                costs.append(record.length if self._is_usable(pack, record) else record.whole_length)
        return min(costs, default=None)

    def whole_length(self, digest: Digest) -> int | None:
        """What its block file costs, as far as packs tell."""
        for pack in self._packs:
            record = pack.index.records.get(digest)
            if record is not None:
                return record.whole_length
        return None

    def worth(self, index: DeltaIndex) -> int:
        """How many bytes its records would save here, were all of its blocks wanted."""
        return sum(
            record.whole_length - record.length for record in index.records.values() if self._can_be_made(record)
        )

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        """The mirrors behind."""
        return self._inner.mirror_status()

    def status(self) -> PackStatus:
        """What packs did so far."""
        return PackStatus(
            packs=len(self._packs),
            requests=self._ranges.requests,
            received_bytes=self._ranges.received_bytes,
            **self._counters.snapshot(),
        )

    def close(self) -> None:
        """Let go of what is behind."""
        self._ranges.close()
        self._inner.close()

    def _node(self, pack: _Pack, digest: Digest) -> bytes | None:
        patch = pack.index.nodes.get(digest)
        if patch is None or not self._has_base(patch.base):
            return None
        made = self._made(pack, lambda: delta_record.rebuild_node(patch, self._load_node))
        if made is not None:
            self._counters.add("rebuilt_nodes")
        return made

    def _block(self, pack: _Pack, digest: Digest, share: Deadline) -> bytes | None:
        record = pack.index.records.get(digest)
        if record is None or not self._is_usable(pack, record) or (record.length and pack.rests(share.clock)):
            return None

        def make() -> bytes:
            load, frame = self._load_block(record.block_size), self._frame(pack, record, share)
            try:
                return delta_record.rebuild(record, frame.raw, load)
            except (FrameRefusedError, DigestMismatchError) as wrong:
                other = self._another(pack, record, frame, share)
                if other is None:
                    raise
                made = delta_record.rebuild(record, other.raw, load)
                self._tell_off(pack, frame.source, wrong)
                return made

        made = self._made(pack, make)
        if made is not None:
            self._counters.add("rebuilt_blocks")
            self._counters.add("record_bytes", record.length)
            self._counters.add("saved_bytes", record.whole_length - record.length)
        return made

    def _frame(self, pack: _Pack, record: Record, deadline: Deadline) -> Part:
        if not record.length:
            return Part(b"", "")
        stop = record.offset + record.length
        try:
            if pack.runs is not None:
                frame = pack.runs.frame(record, deadline)
            else:
                frame = self._ranges.get_part(pack.accelerator, record.offset, stop, deadline)
        except TransportError as error:
            is_quick = isinstance(error, NotServedError)  # whoever lacks it is not asked again
            if not is_quick and not deadline.cancellation.reason:
                pack.note(deadline.clock, failed=True)
            raise
        pack.note(deadline.clock, failed=False)
        return frame

    def _another(self, pack: _Pack, record: Record, wrong: Part, deadline: Deadline) -> Part | None:
        """The record's frame as another mirror has it; None where there is no other frame."""
        if not record.length:
            return None
        stop = record.offset + record.length
        try:
            other = self._ranges.get_part(
                pack.accelerator, record.offset, stop, deadline, skip=frozenset({wrong.source})
            )
        except TransportError:
            return None
        return None if other.raw == wrong.raw else other

    def _tell_off(self, pack: _Pack, source: str, problem: OscircError) -> None:
        """A mirror served a wrong record where another served the right one."""
        self._counters.add("refused_records")
        self._ranges.report(source, problem)
        if pack.runs is not None:
            pack.runs.forget(source)

    def _made(self, pack: _Pack, make: Callable[[], bytes]) -> bytes | None:
        try:
            return make()
        except IntegrityError:
            pack.refuse()
            self._counters.add("refused_records")
        except OscircError:
            self._counters.add("failed_records")
        return None

    def _is_usable(self, pack: _Pack, record: Record) -> bool:
        return pack.is_trusted and self._can_be_made(record)

    def _can_be_made(self, record: Record) -> bool:
        """Whether it is cheaper than the whole frame, and made of what is here."""
        if not record.is_rebuildable or record.length >= record.whole_length:
            return False
        try:
            return all(self._store.holds(source, record.block_size) for source in record.sources)
        except IntegrityError:
            return False

    def _has_base(self, base: Digest) -> bool:
        return base == ZERO_DIGEST or self._store.holds(base, NODE_SIZE)

    def _load_block(self, block_size: int) -> delta_record.LoadBlock:
        return lambda digest: self._store.load(digest, block_size)

    def _load_node(self, digest: Digest) -> bytes | None:
        return self._store.load(digest, NODE_SIZE)
