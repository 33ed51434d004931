"""Deadlines as values: until when a caller waits, and whether somebody has called the waiting off.

A `Deadline` is made at the edge (one read, one refresh) and handed down through every layer; no layer invents a
timeout of its own that outlasts it. A `Cancellation` ends many waits at once: `fail_reads` and `close` use it. The
clock is a seam, so that tests of retries and back-off let no time pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from oscirc_blockstore.errors import DeadlineExceededError


class Clock(Protocol):
    """Monotonic time, and the way to let it pass."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set (True) or the time is over (False)."""


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set (True) or the time is over (False)."""
        return event.wait(timeout_s)


SYSTEM_CLOCK = SystemClock()


class Cancellation:
    """Calls off every wait under a deadline that carries it: at once, for good, and with a reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[object, Callable[[], None]] = {}
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why, or empty while nothing is called off."""
        return self._reason

    def cancel(self, reason: str) -> None:
        """Wake every waiter; the first reason stays."""
        with self._lock:
            self._reason = self._reason or reason
            waiting = list(self._waiting.values())
        for wake in waiting:
            wake()

    @contextmanager
    def calling(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` on cancellation, from the thread that cancels, or at once if that has happened before."""
        entry = object()
        with self._lock:
            self._waiting[entry] = wake
            cancelled = bool(self._reason)
        if cancelled:
            wake()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[entry]

    def waking(self, event: threading.Event) -> AbstractContextManager[None]:
        """Set `event` on cancellation, also on one that happened before."""
        return self.calling(event.set)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in monotonic time until which a caller waits, unless the cancellation ends it earlier.

    `since` is when the whole wait began, for what may use a share of it, however many steps it has.
    """

    at: float
    cancellation: Cancellation = field(default_factory=Cancellation)
    clock: Clock = SYSTEM_CLOCK
    since: float | None = None

    @classmethod
    def after(cls, seconds: float, cancellation: Cancellation | None = None, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """The deadline that many seconds from now."""
        now = clock.monotonic()
        return cls(now + seconds, cancellation or Cancellation(), clock, now)

    def at_most(self, seconds: float) -> Deadline:
        """This deadline, or the one that many seconds from now if that is earlier."""
        at = min(self.at, self.clock.monotonic() + seconds)
        return Deadline(at, self.cancellation, self.clock, self.since)  # `replace` takes four times as long

    def remaining_s(self) -> float:
        """Seconds left; 0.0 when it has passed or was called off."""
        return 0.0 if self.cancellation.reason else max(0.0, self.at - self.clock.monotonic())

    def check(self, what: str) -> None:
        """Raise `DeadlineExceededError` when no time is left."""
        if self.remaining_s() <= 0:
            raise self.exceeded(what)

    def exceeded(self, what: str) -> DeadlineExceededError:
        """The error that says so."""
        return DeadlineExceededError(f"{what}: {self.cancellation.reason or 'no answer in the time given'}")

    def wait(self, event: threading.Event) -> bool:
        """Wait for an event that only its owner and this deadline set; True unless time ran out.

        Returns early, with `event` set, on cancellation: callers look at what they waited for, then `check`.
        """
        with self.cancellation.waking(event):
            return self.clock.wait(event, self.remaining_s())

    def pause(self, seconds: float) -> None:
        """Let that much time pass, or what is left, or until called off."""
        event = threading.Event()
        with self.cancellation.waking(event):
            self.clock.wait(event, min(seconds, self.remaining_s()))
