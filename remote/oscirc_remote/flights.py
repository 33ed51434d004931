"""Single flights: among the threads of a process one thread fetches a block, among processes one process does.

In a process, `FlightTable` holds what is under way; a caller who finds its block there waits for it. A flight runs on
a thread of the table's own, not on a caller's: callers may give up (their deadline, `fail_reads`) while the flight
goes on and leaves its block in the cache for the next try.

Among processes, `FlightLocks` takes an open-file-description lock (fcntl(2), F_OFD_SETLK) on the byte of
`flights.lock` that the digest names. The kernel drops it when its holder dies. Such a lock belongs to the open file,
so threads of one process do not exclude each other by it: the table above has done that before. Two digests that
share a byte wait for each other, which is harmless, as is going on without the lock where it cannot be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError
from oscirc_remote.deadlines import Deadline
from oscirc_remote.sources import Urgency

FIRST_POLL_S = 0.001
LONGEST_POLL_S = 0.02
_LOCK_BYTES = 7  # 56 bits: the greatest whole number of bytes that fits a signed file offset
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, len, pid


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

    def __init__(self, obtain: Callable[[Digest, int, Deadline, Urgency], bytes], threads: int) -> None:
        self._obtain = obtain
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


class FlightLocks:
    """The locks among processes: one open file, one byte per digest."""

    def __init__(self, path: Path) -> None:
        self._guard = threading.Lock()
        self._holders = 0
        self._closing = False
        self._descriptor = -1
        with contextlib.suppress(OSError):  # a full or read-only disk: every process fetches for itself
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def holding(self, digest: Digest, deadline: Deadline, found_taken: Callable[[], None]) -> Iterator[None]:
        """Hold the digest's byte; `found_taken` is called once where another process has it, before it is waited for.

        At most half of the time left is spent waiting: if the holder is stopped or stuck, two downloads are better
        than none, so the caller then goes on without.
        """
        with self._guard:
            self._holders += 1
        held, start, pause_s = False, int.from_bytes(digest[:_LOCK_BYTES], "big"), 0.0
        try:
            patience = deadline.at_most(deadline.remaining_s() / 2)
            while not self._closing:
                taken = self._set(fcntl.F_WRLCK, start)
                held = taken is True
                if taken is not False or patience.remaining_s() <= 0:
                    break
                if not pause_s:
                    found_taken()
                pause_s = min(2 * pause_s or FIRST_POLL_S, LONGEST_POLL_S)
                patience.pause(pause_s)
            yield
        finally:
            if held:
                self._set(fcntl.F_UNLCK, start)
            with self._guard:
                self._holders -= 1
                self._close_when_idle()

    def _set(self, kind: int, start: int) -> bool | None:
        """True when done, False when another process holds the byte, None where locks do not work."""
        if self._descriptor < 0:
            return None
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return None
        return True

    def close(self) -> None:
        """Take no more locks; the file is closed with the last one, never under a holder's feet."""
        with self._guard:
            self._closing = True
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._closing and self._holders == 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
