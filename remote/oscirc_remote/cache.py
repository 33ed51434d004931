"""The cache of a workstation in front of a block source: memory, then file, then one download.

Blocks and nodes have memories of their own, since nodes are asked for at every read and must not be driven out by
data. Bytes are verified whenever they enter memory (`LocalStore.load`, the inner source), so what memory holds is
served as it is. A damaged file is removed, counted and fetched again. A disk that is full or does not take writes is
no error of reading: the block is served, not kept, and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import LocalError, TransportError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.arrivals import NOTHING_ARRIVES, Arrivals, patience
from oscirc_remote.cache_layout import LOCK_FILE, STORE_DIRECTORY
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.flight_locks import FlightLocks
from oscirc_remote.flights import AHEAD_WINDOW, Flight, FlightTable
from oscirc_remote.lru import ByteBoundedCache
from oscirc_remote.origins import Origin, Origins
from oscirc_remote.quota import Quota
from oscirc_remote.sources import BlockSource, Urgency
from oscirc_remote.status import CacheStatus, MirrorStatus

BLOCK_MEMORY_BYTES = 64 << 20
NODE_MEMORY_BYTES = 32 << 20
FLIGHT_THREADS = 32


class CachedSource:
    """A `CachingSource`: `inner` is asked only for what neither memory nor `<directory>/blocks` holds.

    It owns `inner` and closes it. Make it in the process that reads, not before a fork: its threads and locks would
    be shared or lost.
    """

    def __init__(
        self,
        inner: BlockSource,
        directory: Path,
        *,
        block_memory_bytes: int = BLOCK_MEMORY_BYTES,
        node_memory_bytes: int = NODE_MEMORY_BYTES,
        threads: int = FLIGHT_THREADS,
        window: Callable[[], int] = lambda: AHEAD_WINDOW,
        quota: Quota | None = None,
        cost: Callable[[Digest, int], int | None] = lambda _digest, _raw_size: None,
    ) -> None:
        self._inner = inner
        self._cost = cost
        self._quota = quota
        self._store = LocalStore(directory / STORE_DIRECTORY)
        self._blocks = ByteBoundedCache(block_memory_bytes)
        self._nodes = ByteBoundedCache(node_memory_bytes)
        self._locks = FlightLocks(directory / LOCK_FILE)
        self._flights = FlightTable(self._obtain, threads, window=window)
        self._closing = Cancellation()
        self._arrivals = NOTHING_ARRIVES
        self._origins = Origins()
        self._last_write_problem = ""
        self._counters = Counters(
            "memory_hits",
            "file_hits",
            "fetched_blocks",
            "fetched_nodes",
            "fetched_bytes",
            "joined_flights",
            "lock_waits",
            "uncached_writes",
            "prefetched_blocks",
            "prefetched_bytes",
        )

    def resident(self, digest: Digest, raw_size: int) -> bytes | None:
        """The verified bytes if memory or the store has them: never the network, never a lock that is held long."""
        memory = self._memory(raw_size)
        raw = memory.get(digest)
        if raw is not None and len(raw) == raw_size:
            self._counters.add("memory_hits")
            return raw
        raw = self._store.load(digest, raw_size)
        if raw is not None:
            self._counters.add("file_hits")
            memory.put(digest, raw)
        return raw

    def has(self, digest: Digest) -> bool:
        """Whether the store claims to have it (what only memory holds does not survive this process)."""
        return self._store.has(digest)

    def cost(self, digest: Digest, raw_size: int) -> int | None:
        """What fetching it will move in bytes, where delta packs tell."""
        return self._cost(digest, raw_size)

    def fetch(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        """The verified bytes, from wherever they are had first; raises what `inner` raises."""
        return self._arriving(digest, raw_size, deadline, patience(deadline))

    def fetch_here(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        """The same on the caller's own thread, which is cheaper: for one with many, each with blocks of its own.

        Two that ask for one block at once both fetch it. Closing this source calls it off, as it does flights.
        """
        raw = self.resident(digest, raw_size)
        if raw is None:
            own = Deadline(deadline.at, self._closing, deadline.clock, deadline.since)
            raw = self._obtain(digest, raw_size, own, Urgency.DEMAND)
        return raw

    def _arriving(self, digest: Digest, raw_size: int, deadline: Deadline, patient_until: Deadline) -> bytes:
        raw = self.resident(digest, raw_size)
        if raw is None and self._arrivals.wait(digest, patient_until):
            raw = self.resident(digest, raw_size)
        return self._wait(self._join(digest, raw_size, deadline), raw_size, deadline) if raw is None else raw

    def fetch_each(
        self, digests: Iterable[Digest], raw_size: int, new_deadline: Callable[[], Deadline], window: int
    ) -> Iterator[tuple[Digest, bytes]]:
        """Each digest with its bytes, in order; up to `window` are under way at once, each under its own deadline."""
        ahead: deque[tuple[Digest, bytes | Flight | None, Deadline, Deadline]] = deque()

        def finish() -> tuple[Digest, bytes]:
            first, had, until, patient_until = ahead.popleft()
            if had is None:
                return first, self._arriving(first, raw_size, until, patient_until)
            return first, had if isinstance(had, bytes) else self._wait(had, raw_size, until)

        for digest in digests:
            deadline = new_deadline()
            had: bytes | Flight | None = self.resident(digest, raw_size)
            if had is None and not self._arrivals.expects(digest):
                had = self._join(digest, raw_size, deadline)
            ahead.append((digest, had, deadline, patience(deadline)))
            if len(ahead) >= window:
                yield finish()
        while ahead:
            yield finish()

    def start(self, digests: Sequence[Digest], raw_size: int, deadline: Deadline) -> None:
        """Begin to fetch what is not here and not arriving, for somebody who will ask for it at once."""
        for digest in digests:
            here = self._memory(raw_size).get(digest) is not None or self._store.has(digest)
            if not here and not self._arrivals.expects(digest):
                self._join(digest, raw_size, deadline)

    def prefetch(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency = Urgency.AHEAD) -> Flight:
        """Have it fetched although nobody waits for it; does not wait either."""
        return self._join(digest, raw_size, deadline, urgency)

    def remember_prefetched(self, digest: Digest, raw: bytes) -> None:
        """Take verified bytes that came in a bundle, into memory; `keep` is to follow."""
        self._memory(len(raw)).put(digest, raw)
        self._count_prefetched(digest, len(raw))

    def wait_for_arrivals(self, arrivals: Arrivals) -> None:
        """From now on, blocks that these will bring soon are waited for."""
        self._arrivals = arrivals

    def used(self, digest: Digest) -> None:
        """A read wanted this block: what was fetched ahead for it was not in vain."""
        self._origins.used(digest)

    def origin(self, digest: Digest) -> Origin | None:
        """Why it was fetched, if that was in this process."""
        return self._origins.of(digest)

    def unused(self, digest: Digest) -> bool:
        """Whether it was fetched ahead in this process, and no read has wanted it so far."""
        return self._origins.unused(digest)

    def _join(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency = Urgency.DEMAND) -> Flight:
        # a flight has the caller's point in time but not its cancellation: it goes on for the next who asks
        own = Deadline(deadline.at, self._closing, deadline.clock)
        flight = self._flights.join(digest, raw_size, own, urgency)
        if flight.deadline is not own:
            self._counters.add("joined_flights")
        return flight

    def _wait(self, flight: Flight, raw_size: int, deadline: Deadline) -> bytes:
        while True:
            try:
                return flight.wait(deadline)
            except TransportError as error:
                # a flight keeps the deadline of whoever started it: a caller with more time than that flies again
                if not error.retryable or flight.deadline.at >= deadline.at or deadline.remaining_s() <= 0:
                    raise
            flight = self._join(flight.digest, raw_size, deadline)

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        """The inner source's mirrors."""
        return self._inner.mirror_status()

    def status(self) -> CacheStatus:
        """Totals since this source was made."""
        return CacheStatus(
            **self._counters.snapshot(),
            prefetch_hits=self._origins.hits,
            damaged=self._store.damaged,
            last_write_problem=self._last_write_problem,
            mirrors=self.mirror_status(),
        )

    def close(self) -> None:
        """Call off what is under way and let go of files and connections."""
        self._closing.cancel("this image is being closed")
        self._flights.close()
        self._locks.close()
        self._inner.close()
        self._blocks.clear()
        self._nodes.clear()

    def _memory(self, raw_size: int) -> ByteBoundedCache:
        return self._nodes if raw_size == NODE_SIZE else self._blocks

    def _obtain(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency) -> bytes:
        """Runs as the one flight of this digest in this process, or for a caller of `fetch_here`."""
        with self._locks.holding(digest, deadline, lambda: self._counters.add("lock_waits")):
            raw = self.resident(digest, raw_size)  # another process, or a flight that just landed, may have brought it
            if raw is None:
                raw = self._inner.fetch(digest, raw_size, deadline)
                self._counters.add("fetched_nodes" if raw_size == NODE_SIZE else "fetched_blocks")
                self._counters.add("fetched_bytes", raw_size)
                self.keep(digest, raw)
                self._memory(raw_size).put(digest, raw)
                if urgency is Urgency.DEMAND:
                    self._origins.fetched(digest, Origin.DEMAND)
                else:
                    self._count_prefetched(digest, raw_size)
            return raw

    def _count_prefetched(self, digest: Digest, raw_size: int) -> None:
        if raw_size != NODE_SIZE:
            self._origins.fetched(digest, Origin.AHEAD)
            self._counters.add("prefetched_blocks")
            self._counters.add("prefetched_bytes", raw_size)

    def keep(self, digest: Digest, raw: bytes) -> None:
        """Write verified bytes to the store; one that is full or broken is counted, not raised."""
        quota = self._quota
        if quota is not None and quota.is_full():
            self._counters.add("uncached_writes")
            self._last_write_problem = quota.why()
            return
        try:
            self._store.save(digest, raw)
        except LocalError as error:
            self._counters.add("uncached_writes")
            self._last_write_problem = str(error)
            return
        if quota is not None:
            quota.kept(len(raw))
