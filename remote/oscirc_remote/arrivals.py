"""Blocks that a bundle under way will bring: whether to wait for one, and the waiting.

Asking again for a block that is a moment away takes the link from the bundle and comes later (measured, ADR 8). So a
read waits when the block's end is at most `PATIENCE_S` away at the rate at which bytes come, and bytes do come; else it
fetches for itself. Before the bundle's index is known it waits as well, for at most `PATIENCE_S` from the start.

How fast bytes come and what they will be is the word of a stranger. So whatever is promised, one read waits for at most
`LONGEST_WAIT_S` and half of its time in all (`patience`): the other half is for a request of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oscirc_blockstore.digests import Digest
from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock, Deadline

PATIENCE_S = 2.0
LONGEST_WAIT_S = 4.0
STALLED_S = 0.8
_RATE_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a bundle has come: `offset` in its file, `rate` in bytes per second (0: not known yet)."""

    offset: int
    rate: float


def patience(deadline: Deadline) -> Deadline:
    """Until when a read under this deadline may wait for what arrives: the same for all blocks of the read."""
    now = deadline.clock.monotonic()
    since = now if deadline.since is None else deadline.since
    return deadline.at_most(since + min(LONGEST_WAIT_S, (deadline.at - since) / 2) - now)


class Arrivals:
    """What one bundle still brings. The stream's thread tells; any thread asks and waits."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[object, threading.Event] = {}
        self._ends: dict[Digest, int] = {}  # where in the bundle's file each block that is still to come ends
        self._starting = True
        self._since = self._moved_at = clock.monotonic()
        self._progress = Progress(0, 0.0)
        self._marks: deque[tuple[float, int]] = deque()

    def expect(self, ends: Mapping[Digest, int], offset: int) -> None:
        """The bundle brings these from `offset` on; what was expected before is forgotten."""
        with self._lock:
            self._starting = False
            self._ends = dict(ends)
            self._progress = Progress(offset, self._progress.rate)
            self._marks = deque([(self._clock.monotonic(), offset)])
            self._moved_at = self._clock.monotonic()
        self._wake()

    def moved(self, offset: int, arrived: Iterable[Digest] = (), rate: float | None = None) -> None:
        """The stream has come to `offset`; these have come, or will not. `rate` if somebody else has measured it."""
        now = self._clock.monotonic()
        with self._lock:
            for digest in arrived:
                self._ends.pop(digest, None)
            if offset != self._progress.offset:
                self._moved_at = now
            self._marks.append((now, offset))
            while self._marks[0][0] < now - _RATE_WINDOW_S and len(self._marks) > 2:  # noqa: PLR2004  # two make a rate
                self._marks.popleft()
            (then, before), passed = self._marks[0], now - self._marks[0][0]
            if rate is None:
                rate = (offset - before) / passed if passed > 0 and then < now else self._progress.rate
            self._progress = Progress(offset, rate)
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            self._starting = False
            self._ends = {}
        self._wake()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._progress

    def expects(self, digest: Digest) -> bool:
        """Whether it is worth waiting for, now."""
        now = self._clock.monotonic()
        with self._lock:
            if self._starting:
                return now < self._since + PATIENCE_S
            end = self._ends.get(digest)
            if end is None or now > self._moved_at + STALLED_S:
                return False
            left_bytes = end - self._progress.offset
            return not self._progress.rate or left_bytes <= self._progress.rate * PATIENCE_S

    def wait(self, digest: Digest, deadline: Deadline) -> bool:
        """Wait until it has arrived, is not worth waiting for, or `patience` is over; whether there was any waiting."""
        waited = False
        while deadline.remaining_s() > 0 and self.expects(digest):
            waited = True
            event, key = threading.Event(), object()
            with self._lock:
                self._waiting[key] = event
            try:
                if self.expects(digest):
                    deadline.at_most(STALLED_S / 4).wait(event)
            finally:
                with self._lock:
                    del self._waiting[key]
        return waited

    def _wake(self) -> None:
        with self._lock:
            events = list(self._waiting.values())
        for event in events:
            event.set()


NOTHING_ARRIVES = Arrivals()
NOTHING_ARRIVES.end()
