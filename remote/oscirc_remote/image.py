"""The image reader: bytes of a disk by offset, from memory, cache or network; what a mount or a launcher reads from.

A read becomes positions, positions become digests through the table, digests become blocks through a
`CachingSource`; zeros cost nothing. Two doors: `read_if_resident` never waits (a driver serves it inline), `read`
waits for the network until its deadline (a driver calls it on a thread). The same bytes come out of both.

Bytes that leave here have been verified against the manifest's table. A read either gives exactly what was asked,
clamped to the disk's size, or raises.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import OscircError, TransportError, UsageError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import block_map
from oscirc_remote.block_map import BlockState, MapPage
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import SYSTEM_CLOCK, Cancellation, Clock, Deadline
from oscirc_remote.origins import Origin
from oscirc_remote.outage import Outage
from oscirc_remote.pack_source import PackSource
from oscirc_remote.readiness import ProfileShare, ProfileWatch, Readiness
from oscirc_remote.sources import CachingSource
from oscirc_remote.status import PackStatus, PrefetchStatus, ReaderStatus
from oscirc_remote.survey import Survey
from oscirc_remote.table_view import TableView

DEFAULT_DEADLINE_S = 10.0
PARALLEL_BLOCKS = 8
MAP_PAGE_S = 0.5
AHEAD_S = 60.0
FAILING = "reads of this image are being failed on request"


class AheadPolicy(Protocol):
    """Guesses what will be read next."""

    def on_access(self, first_position: int, last_position: int, *, waited: bool) -> Sequence[int]:
        """A read touched these positions, and had to wait or not: those worth fetching now, in order."""


class FetchesAhead(Protocol):
    """Brings blocks before they are asked for."""

    on_block: Callable[[int], None]

    def on_settled(self, settled: Callable[[], None]) -> None:
        """Have it called once the bundle or profile has come, or will not come."""

    def status(self) -> PrefetchStatus:
        """What it does and did."""

    def close(self) -> None:
        """End it."""


class ImageReader:
    """Reads one image. Safe for threads. It owns `source`, and what is `held` while it reads, and closes both."""

    def __init__(
        self,
        manifest: Manifest,
        source: CachingSource,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        clock: Clock = SYSTEM_CLOCK,
        table: TableView | None = None,
        ahead: AheadPolicy | None = None,
        prefetcher: FetchesAhead | None = None,
        profile: ProfileWatch | None = None,
        packs: PackSource | None = None,
        held: contextlib.ExitStack | None = None,
    ) -> None:
        self.manifest = manifest
        self._profile = profile
        self._packs = packs
        self._held = held or contextlib.ExitStack()
        self._source = source
        self._ahead = ahead
        self._prefetcher = prefetcher
        self._ahead_lock = threading.Lock()
        self._looked_at = (-1, -1)
        self._worst_stall_ms = 0
        self._deadline_s = deadline_s
        self._clock = clock
        self._outage = Outage(source.mirror_status, clock)
        self._unanswered: range | None = None
        self._table = table or TableView(manifest.geometry, manifest.root)
        self._shift = manifest.geometry.shift
        self._block_size = manifest.geometry.block_size
        self._zeros = bytes(self._block_size)
        self._recent: tuple[int, bytes] = (-1, b"")
        self._cancellation = Cancellation()
        self._failing = False
        self._lock = threading.Lock()
        self._counters = Counters("demand_stalls", "stalled_ms", "failed_reads")
        self._survey = Survey(self._table, self._resident_node, source.has)

    @property
    def size(self) -> int:
        """The disk's size in bytes."""
        return self.manifest.geometry.disk_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly the bytes asked for, fewer only at the end of the disk; waits at most the deadline.

        Raises `TransportError` when the network did not bring them in time (or reads are being failed), and
        `IntegrityError` when what it brought is not what the publisher signed.
        """
        ready = self.read_if_resident(offset, size)
        return bytes(self._read_cold(offset, size) if ready is None else ready)

    def read_if_resident(self, offset: int, size: int) -> bytes | memoryview | None:
        """The same bytes if memory and cache hold all of them, else None: no network, no waiting.

        A `memoryview` may be part of a block that others read too; it stays valid as long as it is held.
        """
        if offset < 0 or size < 0:
            raise UsageError(f"not a range of a disk: {size} bytes at {offset}")
        stop = min(offset + size, self.size)
        if offset >= stop:
            return b""
        first, last = offset >> self._shift, (stop - 1) >> self._shift
        start = first << self._shift
        if first == last:
            block = self._resident_block(first)
            if block is None:
                return None
            self._look_ahead(first, first, waited=False)
            return memoryview(block)[offset - start : stop - start]
        blocks = []
        for position in range(first, last + 1):
            block = self._resident_block(position)
            if block is None:
                return None
            blocks.append(block)
        self._look_ahead(first, last, waited=False)
        return self._cut(blocks, offset - start, stop - start)

    def _resident_block(self, position: int) -> bytes | None:
        recent, block = self._recent
        if recent == position:
            return block
        digest = self._table.digest_at(position, self._resident_node)
        if digest is None:
            return None
        found = self._zeros if digest == ZERO_DIGEST else self._source.resident(digest, self._block_size)
        if found is not None:
            self._recent = (position, found)
            self._source.used(digest)
        return found

    def _resident_node(self, digest: Digest) -> bytes | None:
        return self._source.resident(digest, NODE_SIZE)

    def _cut(self, blocks: list[bytes], start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of consecutive blocks, copied together once."""
        parts: list[bytes | memoryview] = list(blocks)
        last_start = (len(blocks) - 1) << self._shift
        parts[-1] = memoryview(blocks[-1])[: stop - last_start]
        parts[0] = memoryview(parts[0])[start:]
        return b"".join(parts)

    def _read_cold(self, offset: int, size: int) -> bytes:
        with self._lock:
            deadline = Deadline.after(self._deadline_s, self._cancellation, self._clock)
        started = time.monotonic()
        try:
            deadline.check("a read")
            stop = min(offset + size, self.size)
            first, last = offset >> self._shift, (stop - 1) >> self._shift
            blocks = self._answered(range(first, last + 1), deadline)
        except OscircError:
            self._counters.add("failed_reads")
            raise
        finally:
            stalled_ms = round(1000 * (time.monotonic() - started))
            self._counters.add("demand_stalls")
            self._counters.add("stalled_ms", stalled_ms)
            self._worst_stall_ms = max(self._worst_stall_ms, stalled_ms)
        start = first << self._shift
        return self._cut(blocks, offset - start, stop - start)

    def _answered(self, positions: range, deadline: Deadline) -> list[bytes]:
        """The blocks at these positions; what could not be had for want of the network is remembered."""
        try:
            with self._outage.reading():
                blocks = self._blocks(positions, deadline)
        except TransportError as error:
            if error.retryable and not self._failing:
                self._unanswered = positions
            raise
        self._unanswered = None
        return blocks

    def retry_failed(self, timeout_s: float) -> bool:
        """Whether what a read last could not have for want of the network can be had now; true where none failed so.

        So a launcher finds out that a guest may go on, without its clock running while it asks in vain.
        """
        positions = self._unanswered
        if positions is None:
            return True
        try:
            self._answered(positions, Deadline.after(timeout_s, self._cancellation, self._clock))
        except TransportError as error:
            return not error.retryable
        except OscircError:
            pass  # it is not the network that is missing: the guest's own read will say so
        return True

    def _blocks(self, positions: range, deadline: Deadline) -> list[bytes]:
        """The blocks at these positions, distinct ones fetched in parallel."""

        def load(digest: Digest) -> bytes:
            return self._source.fetch(digest, NODE_SIZE, deadline)

        digests = [self._table.digest_at(position, load) or ZERO_DIGEST for position in positions]
        wanted = list(dict.fromkeys(digest for digest in digests if digest != ZERO_DIGEST))
        self._source.start(wanted, self._block_size, deadline)
        self._look_ahead(positions.start, positions.stop - 1, waited=True)  # after the requests of those who wait
        fetched = self._source.fetch_each(wanted, self._block_size, lambda: deadline, PARALLEL_BLOCKS)
        by_digest = dict(fetched)
        return [by_digest.get(digest, self._zeros) for digest in digests]

    def _look_ahead(self, first: int, last: int, *, waited: bool) -> None:
        """Tell the read-ahead where a read was, and have fetched what it thinks comes next."""
        ahead = self._ahead
        if ahead is None or (first, last) == self._looked_at:
            return
        self._looked_at = (first, last)
        with self._ahead_lock:
            positions = ahead.on_access(first, last, waited=waited)
        for position in positions:
            digest = self._table.digest_at(position, self._resident_node)
            if digest is not None and digest != ZERO_DIGEST and not self._source.has(digest):
                deadline = Deadline.after(AHEAD_S, self._cancellation, self._clock)
                self._source.prefetch(digest, self._block_size, deadline)

    def fail_reads(self, enabled: bool) -> None:
        """Let reads that wait for the network fail at once, those under way and new ones, until called with False.

        For the moment before QEMU is stopped. What is resident is served all the same: it does not wait.
        """
        with self._lock:
            self._failing = enabled
            if enabled:
                self._outage.called_off()
                self._cancellation.cancel(FAILING)
            elif self._cancellation.reason == FAILING:
                self._cancellation = Cancellation()

    def on_block(self, arrived: Callable[[int, int], None]) -> None:
        """Have `arrived(offset, length)` called for blocks that come before they are asked for, from their thread."""

        def at(position: int) -> None:
            offset = position << self._shift
            arrived(offset, min(self._block_size, self.size - offset))

        if self._prefetcher is not None:
            self._prefetcher.on_block = at

    def on_settled(self, settled: Callable[[], None]) -> None:
        """Have `settled()` called once what is fetched ahead has come, from any thread; at once where nothing is."""
        if self._prefetcher is None:
            settled()
        else:
            self._prefetcher.on_settled(settled)

    def is_complete(self) -> bool:
        """Whether every block is in the cache; False also where a look of two seconds did not reach them all."""
        return self._survey.look() == (self.manifest.data_blocks, True)

    def status(self) -> ReaderStatus:
        """What was needed, cached and fetched so far; looks through the cache for at most about two seconds."""
        geometry = self.manifest.geometry
        cached, surveyed = self._survey.look()
        cache, prefetch = self._source.status(), self._prefetcher.status() if self._prefetcher else PrefetchStatus()
        packs = self._packs.status() if self._packs else PackStatus()
        network = self._outage.status()
        profile = self._profile.share() if self._profile else ProfileShare()
        complete = surveyed and cached == self.manifest.data_blocks
        readiness = Readiness(self.manifest.data_blocks, cached, profile, complete)
        return ReaderStatus(
            disk_size=geometry.disk_size,
            block_size=geometry.block_size,
            blocks_needed=self.manifest.data_blocks,
            bytes_needed=self.manifest.data_blocks * geometry.block_size,
            blocks_cached=cached,
            bytes_cached=cached * geometry.block_size,
            surveyed=surveyed,
            requests=sum(mirror.requests for mirror in cache.mirrors) + prefetch.requests + packs.requests,
            received_bytes=sum(mirror.received_bytes for mirror in cache.mirrors)
            + prefetch.streamed_bytes
            + packs.received_bytes,
            worst_stall_ms=self._worst_stall_ms,
            failing_reads=self._failing,
            cache=cache,
            prefetch=prefetch,
            packs=packs,
            waiting_reads=network.waiting_reads,
            network_problem=network.problem,
            network_gone_s=network.gone_s,
            profile_blocks=profile.total,
            profile_blocks_cached=profile.here,
            ready_to_boot=readiness.is_ready_to_boot,
            **self._counters.snapshot(),
        )

    def block_map(self, start: int) -> MapPage:
        """What each block is on this machine, from the position `start` on: as much as is found in half a second."""
        until = self._clock.monotonic() + MAP_PAGE_S
        return block_map.page(
            self._table,
            self._resident_node,
            self._state_of,
            start,
            out_of_time=lambda: self._clock.monotonic() > until,
        )

    def _state_of(self, digest: Digest) -> BlockState:
        if not self._source.has(digest):
            return BlockState.ABSENT
        origin = self._source.origin(digest)
        if origin is Origin.DEMAND:
            return BlockState.DEMANDED
        if origin is Origin.AHEAD:
            return BlockState.AHEAD_UNUSED if self._source.unused(digest) else BlockState.AHEAD_USED
        return BlockState.CACHED

    def close(self) -> None:
        """Fail what waits and let go of the source."""
        with self._lock:
            self._cancellation.cancel("this image is being closed")
        if self._prefetcher is not None:
            self._prefetcher.close()
        self._source.close()
        self._held.close()
