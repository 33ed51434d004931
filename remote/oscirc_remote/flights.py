"""Single flights: among the threads of a process one thread fetches a block (among processes: `flight_locks`).

`FlightTable` holds what is under way; a caller who finds its block there waits for it. A flight runs on a thread of
the table's own, not on a caller's: callers may give up (their deadline, `fail_reads`) while the flight goes on and
leaves its block in the cache for the next try.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError
from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock, Deadline
from oscirc_remote.departures import FILL_AT_ONCE, Departures
from oscirc_remote.sources import Urgency
from oscirc_remote.workers import Workers

AHEAD_WINDOW = 8
MOST_AHEAD = 16


class Flight:
    """One block under way or about to be: it keeps `deadline`; that and `urgency` are settled when it starts."""

    def __init__(self, digest: Digest, raw_size: int, deadline: Deadline) -> None:
        self.digest = digest
        self.raw_size = raw_size
        self.deadline = deadline
        self.urgency = Urgency.DEMAND
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
    """What is under way in this process, and the threads that fly; `departures` says in which order.

    At most `threads` DEMAND flights fly at once; `window()`, asked often and under the lock, bounds those AHEAD.
    """

    def __init__(
        self,
        obtain: Callable[[Digest, int, Deadline, Urgency], bytes],
        threads: int,
        *,
        window: Callable[[], int] = lambda: AHEAD_WINDOW,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._obtain = obtain
        self._flights: dict[Digest, Flight] = {}
        self._lock = threading.Lock()
        self._departures = Departures(threads, lambda: min(window(), MOST_AHEAD))
        self._workers = Workers("oscirc-flight", threads + MOST_AHEAD + FILL_AT_ONCE + 1)
        self._clock = clock
        self._closing = threading.Event()
        self._watching = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Flights that were asked for ahead and given up before they started."""
        return self._dropped

    def join(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency = Urgency.DEMAND) -> Flight:
        """The flight of this block that is under way or waits (and then as urgently as this), or a new one.

        A new one keeps `deadline`, as does one that waited and ends earlier.
        """
        now = self._clock.monotonic()
        dropped: Digest | None = None
        with self._lock:
            flight = self._flights.get(digest)
            if flight is not None:
                self._departures.asked(urgency, now)
                if self._departures.promote(digest, urgency):
                    if flight.deadline.at < deadline.at:
                        flight.deadline = deadline
                    self._start_due(now)
                return flight
            if self._closing.is_set():
                raise BusyError("this image is being closed")
            flight = self._flights[digest] = Flight(digest, raw_size, deadline)
            dropped = self._departures.add(digest, urgency, now)
            self._start_due(now)
            given_up = self._forget([dropped] if dropped else [])
        for other in given_up:
            other.land(None, DeadlineExceededError("not fetched ahead: too much else was asked for since"))
        return flight

    def close(self) -> None:
        """Start no more flights; those that wait are given up, those under way end by their own deadlines."""
        with self._lock:
            self._closing.set()
            given_up = self._forget(self._departures.abandon(*Urgency))
        for flight in given_up:
            flight.land(None, BusyError("this image is being closed"))
        self._workers.close()

    def _forget(self, digests: Sequence[Digest]) -> list[Flight]:
        self._dropped += len(digests)
        return [self._flights.pop(digest) for digest in digests]

    def _start_due(self, now: float) -> None:
        """Under the lock: start what may start, and look again when time alone lets more start."""
        for digest, urgency in self._departures.due(now):
            flight = self._flights[digest]
            flight.urgency = urgency
            try:
                self._workers.run(functools.partial(self._fly, flight))
            except RuntimeError as error:
                self._departures.landed(urgency, now)
                self._flights.pop(digest).land(None, LocalError(f"no thread to fetch with: {error}"))
        if not self._watching and self._departures.due_in_s(now) is not None:
            self._watching = True
            self._workers.run(self._watch)

    def _watch(self) -> None:
        while True:
            with self._lock:
                now = self._clock.monotonic()
                self._start_due(now)
                seconds = self._departures.due_in_s(now)
                if seconds is None or self._closing.is_set():
                    self._watching = False
                    return
            self._clock.wait(self._closing, seconds)

    def _fly(self, flight: Flight) -> None:
        raw: bytes | None = None
        error: BaseException | None = None
        try:
            raw = self._obtain(flight.digest, flight.raw_size, flight.deadline, flight.urgency)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it is the waiters' to see
            error = raised
        with self._lock:
            del self._flights[flight.digest]
            now = self._clock.monotonic()
            self._departures.landed(flight.urgency, now)
            self._start_due(now)
        flight.land(raw, error)
