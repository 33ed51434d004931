"""How many blocks that nobody waits for may be under way at once. Pure: the time is told.

To keep a link busy with requests of one frame each, it takes as many as fit into a round trip (rate x round trip /
frame bytes), one that is being received, and one because no two take equally long. Each more only waits in the
bottleneck's queue, and a read that a guest waits for then waits behind it: with this window at most `SLACK_FRAMES` of
them, which is what a demand read may lose to fetching ahead. The estimates are those of BBR (Cardwell et al., "BBR:
congestion-based congestion control", ACM Queue 14(5), 2016): the greatest rate of delivery of the last seconds, and the
least time to a first byte. While more flights bring more bytes the rate grows, and the window with it; when they bring
only later answers (first bytes come later than round trip and slack explain), it shrinks by a quarter per round trip.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

FLOOR, CEILING = 2, 16
FIRST_WINDOW = 8
SLACK_FRAMES = 2
TYPICAL_FRAME_BYTES = 140_000
MEMORY_S = 10.0
INFLATED = 1.25
SHRINK = 0.75
_WEIGHT = 0.25
_SMALL_BYTES = 16 * 1024  # tells nothing of the rate


class Departure(NamedTuple):
    """When a request left, and how many bytes had come by then."""

    at: float
    delivered_bytes: int


class _Best:
    """The best value of the last seconds."""

    def __init__(self, better: Callable[[float, float], bool], memory_s: float) -> None:
        self._better = better
        self._memory_s = memory_s
        self._seen: deque[tuple[float, float]] = deque()  # (time, value), each value better than those after it

    def add(self, value: float, now: float) -> None:
        while self._seen and not self._better(self._seen[-1][1], value):
            self._seen.pop()
        self._seen.append((now, value))
        while self._seen[0][0] < now - self._memory_s and len(self._seen) > 1:
            self._seen.popleft()

    @property
    def value(self) -> float:
        return self._seen[0][1] if self._seen else 0.0


class AheadWindow:
    """The window, learnt from every transfer. Not safe for threads: its owner's lock is."""

    def __init__(self) -> None:
        self._delivered_bytes = 0
        self._rate = _Best(operator.gt, MEMORY_S)
        self._round_trip = _Best(operator.lt, 3 * MEMORY_S)
        self._latency_s = 0.0
        self._frame_bytes = float(TYPICAL_FRAME_BYTES)
        self._most = float(CEILING)
        self._changed_at = -math.inf

    @property
    def round_trip_s(self) -> float:
        """Least seconds from a request to its first byte, lately; 0.0 when nothing is known."""
        return self._round_trip.value

    @property
    def rate(self) -> float:
        """Greatest bytes per second, lately; 0.0 when nothing is known."""
        return self._rate.value

    def departed(self, now: float) -> Departure:
        """A request leaves."""
        return Departure(now, self._delivered_bytes)

    def landed(self, departure: Departure, now: float, size: int, first_byte_s: float) -> None:
        """Its answer has come."""
        self._delivered_bytes += size
        if now > departure.at and self._delivered_bytes - departure.delivered_bytes >= _SMALL_BYTES:
            self._rate.add((self._delivered_bytes - departure.delivered_bytes) / (now - departure.at), now)
        if size >= _SMALL_BYTES:
            self._frame_bytes += _WEIGHT * (size - self._frame_bytes)
        self._round_trip.add(first_byte_s, now)
        self._latency_s += (_WEIGHT if self._latency_s else 1.0) * (first_byte_s - self._latency_s)
        self._adapt(now)

    def streamed(self, now: float, size: int, seconds: float) -> None:
        """A long transfer went at this rate."""
        if seconds > 0 and size >= _SMALL_BYTES:
            self._rate.add(size / seconds, now)

    def window(self) -> int:
        """Flights that may be under way at once, beside those of reads."""
        if not self.rate:
            return FIRST_WINDOW
        return max(FLOOR, min(CEILING, int(self._most), self._filling()))

    def _filling(self) -> int:
        return math.ceil(self.rate * self.round_trip_s / self._frame_bytes) + SLACK_FRAMES

    def _adapt(self, now: float) -> None:
        """Once per round trip: a quarter less when answers come late, one more when they do not."""
        if not self.rate or now - self._changed_at < self._latency_s:
            return
        self._changed_at = now
        explained_s = INFLATED * self.round_trip_s + (SLACK_FRAMES + 1) * self._frame_bytes / self.rate
        if self._latency_s > explained_s:
            self._most = max(FLOOR, SHRINK * min(self._most, self.window()))
        else:
            self._most = min(CEILING, self._most + 1)
