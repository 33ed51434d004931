"""How often somebody may do what needs no token: a bucket of turns for each sender, and one for all of them together.

Pure but for a lock: times are given by the caller. What is remembered is bounded; the sender that was not heard of for
longest is forgotten, which gives it new turns no sooner than all senders together could have used up theirs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_SENDERS = 4096
_GRAIN_S = 1e-3


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` turns at once, and `per_hour` in the long run."""

    burst: int
    per_hour: float


@dataclass(slots=True)
class _Bucket:
    turns: float
    at_s: float

    def fill(self, rate: Rate, now_s: float) -> None:
        passed = max(0.0, now_s - self.at_s)  # a clock that was set back gives nothing
        self.turns = min(float(rate.burst), self.turns + passed * rate.per_hour / 3600)
        self.at_s = now_s

    def missing_s(self, rate: Rate) -> float:
        missing = (1 - self.turns) * 3600 / rate.per_hour
        return missing if missing > _GRAIN_S else 0.0


class Admission:
    """Counts turns; safe for threads."""

    def __init__(self, each: Rate, together: Rate, now_s: float) -> None:
        self._each = each
        self._rate = together
        self._together = _Bucket(together.burst, now_s)
        self._senders: OrderedDict[bytes, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, sender: bytes, now_s: float) -> float:
        """Take a turn: 0, or in how many seconds there will be one; a refusal uses nothing up."""
        with self._lock:
            bucket = self._senders.setdefault(sender, _Bucket(self._each.burst, now_s))
            self._senders.move_to_end(sender)
            if len(self._senders) > MAX_SENDERS:
                self._senders.popitem(last=False)
            bucket.fill(self._each, now_s)
            self._together.fill(self._rate, now_s)
            missing = max(bucket.missing_s(self._each), self._together.missing_s(self._rate))
            if not missing:
                bucket.turns -= 1
                self._together.turns -= 1
            return missing

    def give_back(self, sender: bytes) -> None:
        """A turn that was taken shall not count."""
        with self._lock:
            if (bucket := self._senders.get(sender)) is not None:
                bucket.turns = min(float(self._each.burst), bucket.turns + 1)
            self._together.turns = min(float(self._rate.burst), self._together.turns + 1)
