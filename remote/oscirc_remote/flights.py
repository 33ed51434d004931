"""Single flights: among the threads of a process one thread fetches a block (among processes: `flight_locks`).

`FlightTable` holds what is under way; a caller who finds its block there waits for it. A flight runs on a thread of
the table's own, not on a caller's: callers may give up (their deadline, `fail_reads`) while the flight goes on and
leaves its block in the cache for the next try.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError
from oscirc_remote.deadlines import Deadline
from oscirc_remote.sources import Urgency

AHEAD_WINDOW = 8


class Flight:
    """One block under way. `deadline` is the one that the flight itself keeps."""

    def __init__(self, digest: Digest, deadline: Deadline) -> None:
        self.digest = digest
        self.deadline = deadline
        self._lock = threading.Lock()
        self._waiting: set[threading.Event] = set()
        self._landed = False
        self._raw: bytes | None = None
        self._error: BaseException | None = None

    def land(self, raw: bytes | None, error: BaseException | None) -> None:
        """End the flight with bytes or with an error, and wake whoever waits."""
        with self._lock:
            self._raw, self._error, self._landed = raw, error, True
            waiting = list(self._waiting)
        for event in waiting:
            event.set()

    def wait(self, deadline: Deadline) -> bytes:
        """The bytes, the flight's error, or `DeadlineExceededError` when the caller's own deadline ends first."""
        event = threading.Event()
        with self._lock:
            if not self._landed:
                self._waiting.add(event)
        if not self._landed:
            deadline.wait(event)
        with self._lock:
            self._waiting.discard(event)
            if self._raw is not None:
                return self._raw
            if self._error is not None:
                raise self._error
        raise deadline.exceeded(f"block {self.digest.hex()[:16]}")


class FlightTable:
    """What is under way in this process, and the threads that fly."""

    def __init__(
        self,
        obtain: Callable[[Digest, int, Deadline, Urgency], bytes],
        threads: int,
        *,
        window: Callable[[], int] = lambda: AHEAD_WINDOW,
    ) -> None:
        self._obtain = obtain
        self._window = window
        self._flights: dict[Digest, Flight] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="oscirc-flight")
        self._closed = False

    def join(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency = Urgency.DEMAND) -> Flight:
        """The flight of this block that is under way, or a new one that keeps `deadline`."""
        with self._lock:
            flight = self._flights.get(digest)
            if flight is not None:
                return flight
            if self._closed:
                raise BusyError("this image is being closed")
            flight = self._flights[digest] = Flight(digest, deadline)
            self._threads.submit(self._fly, flight, raw_size, urgency)
            return flight

    def _fly(self, flight: Flight, raw_size: int, urgency: Urgency) -> None:
        raw: bytes | None = None
        error: BaseException | None = None
        try:
            raw = self._obtain(flight.digest, raw_size, flight.deadline, urgency)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it is the waiters' to see
            error = raised
        with self._lock:
            del self._flights[flight.digest]
        flight.land(raw, error)

    def close(self) -> None:
        """Start no more flights; those under way end by their own deadlines."""
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=False)
