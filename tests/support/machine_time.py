"""A clock for what must be quick: it stands still while this machine keeps a thread waiting that wants to run.

A test that says "no read takes two seconds" speaks of the program. On a machine with more work than cores each step of
a read waits for its turn, and the time measured is that of the others. A thread that does nothing but wake up tells
how long it was kept from it: what passes meanwhile does not count. On an idle machine this is the monotonic clock, to a
millisecond.
"""

from __future__ import annotations

import functools
import threading
import time

_TICK_S = 0.01


class _Ticker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="machine-time", daemon=True)
        self._lock = threading.Lock()
        self._late_s = 0.0
        self._due = time.monotonic() + _TICK_S

    def run(self) -> None:
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                now = time.monotonic()
                self._late_s += max(0.0, now - self._due)
                self._due = now + _TICK_S

    def late_s(self) -> float:
        """What was waited in vain until now, since the start."""
        with self._lock:
            return self._late_s + max(0.0, time.monotonic() - self._due)


@functools.cache
def _ticker() -> _Ticker:
    ticker = _Ticker()
    ticker.start()
    return ticker


def kept_waiting_s() -> float:
    """For how long this machine has kept a thread waiting, since the first call."""
    return _ticker().late_s()


def clock() -> float:
    """Seconds; only differences mean something."""
    late_s = kept_waiting_s()
    return time.monotonic() - late_s
