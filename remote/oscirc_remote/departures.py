"""Which flights may start now: the queues of a `FlightTable`, which calls this under its lock. No threads, no clock.

The rules:

1. DEMAND starts at once, on a connection of its own, whatever else flies; only beyond `most_demands` does it queue.
2. AHEAD starts in the order asked for, while fewer than `window()` of them fly. Of more than `MOST_QUEUED` that wait,
   the oldest is dropped: it was asked for by a guess that newer guesses have replaced.
3. FILL starts while nothing AHEAD waits and no DEMAND has been under way for `QUIET_S`; at most `FILL_AT_ONCE` fly.
4. What waits and is asked for more urgently moves to the queue of that urgency. What flies is left alone: it will
   land sooner than a second request could.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from oscirc_blockstore.digests import Digest
from oscirc_remote.sources import Urgency

MOST_QUEUED = 256
FILL_AT_ONCE = 2
QUIET_S = 0.5


class Departures:
    """What waits to fly and how many fly, by urgency."""

    def __init__(self, most_demands: int, window: Callable[[], int]) -> None:
        self._most_demands = most_demands
        self._window = window
        self._queues: dict[Urgency, dict[Digest, None]] = {urgency: {} for urgency in Urgency}
        self._flying: Counter[Urgency] = Counter()
        self._demanded_at = -QUIET_S

    def add(self, digest: Digest, urgency: Urgency, now: float) -> Digest | None:
        """Queue a flight; returns the one that is dropped for it, if any."""
        queue = self._queues[urgency]
        queue[digest] = None
        self.asked(urgency, now)
        if urgency is not Urgency.DEMAND and len(queue) > MOST_QUEUED:
            oldest = next(iter(queue))
            del queue[oldest]
            return oldest
        return None

    def asked(self, urgency: Urgency, now: float) -> None:
        """Somebody asked for a flight, which may be under way."""
        if urgency is Urgency.DEMAND:
            self._demanded_at = now

    def promote(self, digest: Digest, urgency: Urgency) -> bool:
        """Move one that waits to a more urgent queue; False when it does not wait in a less urgent one."""
        for less in Urgency:
            if less > urgency and digest in self._queues[less]:
                del self._queues[less][digest]
                self._queues[urgency][digest] = None
                return True
        return False

    def abandon(self, *urgencies: Urgency) -> list[Digest]:
        """Empty the queues of these urgencies."""
        dropped = [digest for urgency in urgencies for digest in self._queues[urgency]]
        for urgency in urgencies:
            self._queues[urgency].clear()
        return dropped

    def landed(self, urgency: Urgency, now: float) -> None:
        """One that `due` gave has ended."""
        self._flying[urgency] -= 1
        self.asked(urgency, now)

    def due(self, now: float) -> list[tuple[Digest, Urgency]]:
        """What starts now; it counts as flying from here on."""
        starting: list[tuple[Digest, Urgency]] = []
        self._take(Urgency.DEMAND, self._most_demands, starting)
        if self._queues[Urgency.AHEAD]:
            self._take(Urgency.AHEAD, self._window(), starting)
        if self._fill_in_s(now) == 0:
            self._take(Urgency.FILL, FILL_AT_ONCE, starting)
        return starting

    def due_in_s(self, now: float) -> float | None:
        """Seconds after which `due` has more although nothing landed or was asked for; None if it never has."""
        seconds = self._fill_in_s(now)
        return seconds if seconds and self._flying[Urgency.FILL] < FILL_AT_ONCE else None

    def _fill_in_s(self, now: float) -> float | None:
        waits = self._queues[Urgency.FILL] and not self._queues[Urgency.AHEAD] and not self._queues[Urgency.DEMAND]
        if not waits or self._flying[Urgency.DEMAND]:
            return None
        return max(0.0, self._demanded_at + QUIET_S - now)

    def _take(self, urgency: Urgency, most: int, starting: list[tuple[Digest, Urgency]]) -> None:
        queue = self._queues[urgency]
        while queue and self._flying[urgency] < most:
            digest = next(iter(queue))
            del queue[digest]
            self._flying[urgency] += 1
            starting.append((digest, urgency))
