"""A cap on the rate of what is fetched, shared by whatever threads are given the same `RateLimit`."""

from __future__ import annotations

import threading

from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock, Deadline

BURST_S = 0.25
EACH_S = 10.0


class RateLimit:
    """A token bucket: `bytes_per_s` on average, at most a quarter of a second's worth at once.

    Bytes are paid for after they were read: a caller that took many waits until they are paid, so that the average
    holds whatever the size of a read. Safe for threads.
    """

    def __init__(self, bytes_per_s: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        if bytes_per_s <= 0:
            raise ValueError("a rate limit must be above zero")
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock.monotonic()

    def at_once(self, size_bytes: int, most: int) -> int:
        """How many things of this size to fetch at once, so that each is there in ten seconds, or as soon as can be.

        More would share the rate until all of them have run out of time.
        """
        return max(1, min(most, int(self.bytes_per_s * EACH_S / size_bytes)))

    def spend(self, size_bytes: int, deadline: Deadline) -> None:
        """Account for bytes that came, and wait until they fit the rate, or until the deadline."""
        with self._lock:
            now = self._clock.monotonic()
            self._paid_until = max(self._paid_until, now - BURST_S) + size_bytes / self.bytes_per_s
            owed_s = self._paid_until - now
        if owed_s > 0:
            deadline.pause(owed_s)
