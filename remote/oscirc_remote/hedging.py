"""When a second mirror is asked beside the first. Pure: the time is told.

The rules of a race for one block:

1. The first mirror is asked. When it fails, the next is asked at once, unless another is under way.
2. When it is late (`hedge_after_s`), the next one in good standing is asked as well: a hedge. At most one per race, and
   over all races no more than the budget allows, so that a link that is slow for all is not loaded twice.
3. When it has not answered within its patience, the next is asked as well without regard to the budget: a mirror that
   went dead costs a read no more than that.
4. A mirror that is asked to learn how it does (a sample, a probe) is hedged for free, so that no read waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HEDGE_SHARE = 0.08
HEDGES_AT_FIRST = 2.0
MOST_HEDGES_SAVED = 10.0


class HedgeBudget:
    """Allows `HEDGE_SHARE` of the requests to be hedged, and a few more. Not safe for threads."""

    def __init__(self) -> None:
        self._tokens = HEDGES_AT_FIRST

    def earn(self) -> None:
        """A block was asked for."""
        self._tokens = min(MOST_HEDGES_SAVED, self._tokens + HEDGE_SHARE)

    def spend(self) -> bool:
        """Whether one more hedge is allowed; it is spent then."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Entrant:
    """One mirror in a race: when it is late, when patience with it ends, its standing, whether it is asked to learn."""

    hedge_after_s: float
    patience_s: float
    good: bool
    learning: bool = False


@dataclass(slots=True)
class Race:
    """Who of the entrants, by number, is asked when. `hedge` is the one that was asked as a hedge, if any."""

    entrants: Sequence[Entrant]
    budget: HedgeBudget
    running: dict[int, float] = field(default_factory=dict)
    hedge: int | None = None
    _asked: int = 0
    _may_hedge: bool = True

    @property
    def over(self) -> bool:
        """Whether all have failed."""
        return not self.running and self._asked == len(self.entrants)

    def stopped(self, number: int) -> None:
        """An entrant has answered or failed."""
        del self.running[number]

    def due(self, now: float) -> int | None:
        """The entrant to be asked now, if any; it runs from here on."""
        if self._asked == len(self.entrants):
            return None
        if self.running:
            newest = max(self.running)
            waited_s = now - self.running[newest]
            entrant = self.entrants[newest]
            if not self.entrants[self._asked].good:
                return None
            if waited_s < entrant.patience_s:
                if not self._may_hedge or waited_s < entrant.hedge_after_s:
                    return None
                self._may_hedge = False
                if not entrant.learning and not self.budget.spend():
                    return None
                self.hedge = self._asked
        self.running[self._asked] = now
        self._asked += 1
        return self._asked - 1

    def next_at(self) -> float | None:
        """When `due` has one although nothing failed; None if never."""
        if not self.running or self._asked == len(self.entrants) or not self.entrants[self._asked].good:
            return None
        newest = max(self.running)
        entrant = self.entrants[newest]
        after_s = min(entrant.hedge_after_s, entrant.patience_s) if self._may_hedge else entrant.patience_s
        return self.running[newest] + after_s
