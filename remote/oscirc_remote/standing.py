"""How a mirror does: how fast it answered lately, how it failed, and in which order mirrors are asked. Pure.

The rules:

1. The score is the time that a typical frame will probably take: mean seconds to the first byte, their mean deviation
   (both as RFC 6298 has them), the frame at the mean rate; and `TROUBLE_S` for each failure, halved every 20 s.
2. Mirrors are asked in the order of their scores, but of those that are within `ALIKE` of the best the one that was
   given first. Who has no score yet comes after those that have one, until it was sampled.
3. A failure demotes for a while that doubles with each one in a row; a server that says `Retry-After` for that long,
   within bounds. What fails while it is demoted was mostly asked before, and doubles nothing. A lie demotes for longer,
   and doubles with every lie: a good block neither ends it early nor makes it forgotten. A block that it lacks is no
   trouble.
4. What is demoted is asked last. When its while is over it is to be probed; it is good again when that succeeded.
5. What was called off because another answered first is no failure, but it tells that an answer takes at least so long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from oscirc_blockstore.errors import (
    DocumentRefusedError,
    IntegrityError,
    NotServedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
)
from oscirc_remote.pacing import TYPICAL_FRAME_BYTES

FIRST_DEMOTION_S = 5.0
LIE_DEMOTION_S = 60.0
LONGEST_DEMOTION_S = 600.0
LONGEST_RETRY_AFTER_S = 120.0
TROUBLE_S, TROUBLE_HALVED_S = 0.05, 20.0
ALIKE, ALIKE_S = 1.2, 0.005
RECENT = 64
FEW = 8
SLOWEST_SHARE = 0.05
HEDGE_UNKNOWN_S, HEDGE_MIN_S, HEDGE_MAX_S = 0.5, 0.05, 1.0

LIES = (IntegrityError, OversizedResponseError, DocumentRefusedError)  # answers that are not the block asked for

_LATENCY_WEIGHT, _DEVIATION_WEIGHT = 1 / 8, 1 / 4
_RATE_BYTES = 16 * 1024  # a smaller answer tells nothing of the rate


class Standing:
    """What is known of one mirror. Not safe for threads: the lock of its owner is."""

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.deviation_s = 0.0
        self.rate: float | None = None
        self.measured_at = 0.0
        self.demoted_until = 0.0
        self.probed_until = 0.0  # somebody does
        self.failures_in_a_row = 0
        self.lies = 0
        self.last_problem = ""
        self._lie_until = 0.0
        self._trouble = 0.0
        self._trouble_at = 0.0
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def served(self, now: float, *, seconds: float, first_byte_s: float, size: int) -> None:
        """It gave a block: the whole took so long, its first byte so long."""
        if now >= self._lie_until:
            self.failures_in_a_row, self.demoted_until, self.probed_until = 0, 0.0, 0.0
        self._seconds.append(seconds)
        self._latency(now, first_byte_s)
        if size >= _RATE_BYTES:
            self.streamed(now, size, seconds - first_byte_s)

    def streamed(self, now: float, size: int, seconds: float) -> None:
        """So many bytes came in so long."""
        rate = size / max(seconds, 1e-4)
        self.rate = rate if self.rate is None else self.rate + _LATENCY_WEIGHT * (rate - self.rate)
        self.measured_at = now

    def outlasted(self, now: float, seconds: float) -> None:
        """It had not answered after so long, when another had."""
        if self.latency_s is None or seconds > self.latency_s:
            self._latency(now, seconds)

    def failed(self, now: float, error: OscircError) -> None:
        """It did not answer, refused, lacks the block, or lied."""
        lied, known = isinstance(error, LIES), self.demoted_until > now
        self.lies += lied
        self.last_problem = str(error)
        self.probed_until = 0.0
        if not isinstance(error, NotServedError):
            self._trouble, self._trouble_at = self._trouble_now(now) + 1, now
        if known and not lied:
            return
        first_s = LIE_DEMOTION_S if lied else FIRST_DEMOTION_S
        demotion_s = first_s * 2 ** min(self.lies - 1 if lied else self.failures_in_a_row, 10)
        asked_s = error.retry_after_s if isinstance(error, ServerRefusedError) else 0.0
        demotion_s = max(min(demotion_s, LONGEST_DEMOTION_S), min(asked_s, LONGEST_RETRY_AFTER_S))
        self.demoted_until = max(self.demoted_until, now + demotion_s)
        if lied:
            self._lie_until = self.demoted_until
        self.failures_in_a_row += 1

    def is_good(self) -> bool:
        """Whether its last answer was one."""
        return self.failures_in_a_row == 0

    def is_to_be_probed(self, now: float) -> bool:
        """Whether it was demoted for long enough, and nobody probes it."""
        return self.failures_in_a_row > 0 and max(self.demoted_until, self.probed_until) <= now

    def expected_s(self) -> float | None:
        """Seconds that a typical frame takes; None while nothing was measured."""
        if self.latency_s is None:
            return None
        return self.latency_s + self.deviation_s + (TYPICAL_FRAME_BYTES / self.rate if self.rate else 0.0)

    def score_s(self, now: float) -> float | None:
        """Rule 1; the less, the better."""
        expected_s = self.expected_s()
        return None if expected_s is None else expected_s + TROUBLE_S * self._trouble_now(now)

    def hedge_after_s(self) -> float:
        """Seconds after which an answer of this mirror is late: the 95th percentile of the recent ones, in bounds."""
        if len(self._seconds) < FEW:
            return HEDGE_UNKNOWN_S
        late_s = sorted(self._seconds)[-1 - int(len(self._seconds) * SLOWEST_SHARE)]
        return max(HEDGE_MIN_S, min(HEDGE_MAX_S, late_s))

    def _trouble_now(self, now: float) -> float:
        return float(self._trouble * 0.5 ** ((now - self._trouble_at) / TROUBLE_HALVED_S))

    def _latency(self, now: float, seconds: float) -> None:
        self.measured_at = now
        if self.latency_s is None:
            self.latency_s, self.deviation_s = seconds, seconds / 2
        else:
            self.deviation_s += _DEVIATION_WEIGHT * (abs(seconds - self.latency_s) - self.deviation_s)
            self.latency_s += _LATENCY_WEIGHT * (seconds - self.latency_s)


def ranked(standings: Sequence[Standing], now: float) -> list[int]:
    """The numbers of the mirrors in the order in which they are to be asked: rules 2 and 4."""
    good = [number for number, standing in enumerate(standings) if standing.is_good()]
    scores = {number: score for number in good if (score := standings[number].score_s(now)) is not None}
    order = []
    while scores:
        alike_s = ALIKE * min(scores.values()) + ALIKE_S
        first = next(number for number, score in scores.items() if score <= alike_s)
        del scores[first]
        order.append(first)
    order += [number for number in good if number not in order]
    demoted = [number for number, standing in enumerate(standings) if not standing.is_good()]
    return order + sorted(demoted, key=lambda number: standings[number].demoted_until)
