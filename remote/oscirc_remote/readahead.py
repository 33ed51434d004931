"""Guesses which blocks will be read next, where no profile says so. Pure: accesses in, positions out.

The guesses are spatial, since a boot reads files and files mostly stand in one piece (a stock Debian 12 boot: 554
blocks in 138 runs, 60 % of first touches are followed by a touch of the next block):

- the first touch of a new place asks for the next `START` blocks with data;
- a touch that continues a run asks for twice as many as the run is long, up to `LONGEST`.

Guesses that nobody wanted are counted. When they exceed `waste_share` of what was touched it is silent until hits or
further reads have paid for them, but for runs longer than `LONG_RUN`: those still get the next few. Positions that are
fetched anyway (`foresee`) count as touched: reads of them ask for nothing, and a read beside them continues their run.
Figures: ADR 9.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

START = 2
LONGEST = 24
REMEMBERED = 1 << 18
GROWTH = 2
GRACE = 16
LONG_RUN, LONG_RUN_AHEAD = 6, 4
WASTE_SHARE = 0.28

_Value = TypeVar("_Value")


class Mechanism(Enum):
    """Why a block was guessed."""

    START = "start"
    RUN = "run"


@dataclass(slots=True)
class Tally:
    """How the guesses of a mechanism went; what was not wanted yet may still be."""

    guessed: int = 0
    wanted: int = 0


class ReadAhead:
    """One image's. `is_worth(position)` tells whether there is something to fetch: data that is not here.

    Not safe for threads. Memory is bounded: the places of the last `REMEMBERED` touches are kept.
    """

    def __init__(self, block_count: int, is_worth: Callable[[int], bool]) -> None:
        self._block_count = block_count
        self._is_worth = is_worth
        self._touched: OrderedDict[int, None] = OrderedDict()
        self._guessed: OrderedDict[int, Mechanism] = OrderedDict()
        self._touches = 0
        self.waste_share = WASTE_SHARE
        self.tallies = {mechanism: Tally() for mechanism in Mechanism}

    def on_access(self, first_position: int, last_position: int, *, waited: bool = True) -> Sequence[int]:
        """A read touched these positions: those worth fetching now, in order; none twice while it is remembered.

        Of a read that did not have to wait, only what was guessed counts: the rest was here for another reason.
        """
        found: list[int] = []
        for position in range(first_position, last_position + 1):
            if waited or position in self._guessed:
                if position not in self._touched:
                    found += self._on_first_touch(position)
            else:
                self.foresee(position)
        return [position for position in found if position > last_position]

    def is_touched(self, position: int) -> bool:
        """Whether it was read, or was to be fetched without a guess."""
        return position in self._touched

    def foresee(self, position: int) -> None:
        """This one is, or will be, fetched without a guess."""
        if position not in self._touched and position not in self._guessed:
            _remember(self._touched, position, None)

    def _on_first_touch(self, position: int) -> list[int]:
        self._touches += 1
        _remember(self._touched, position, None)
        mechanism = self._guessed.pop(position, None)
        if mechanism is not None:
            self.tallies[mechanism].wanted += 1
        run = 0
        while run < LONGEST and position - 1 - run in self._touched:
            run += 1
        mechanism = Mechanism.RUN if run else Mechanism.START
        if self._may_guess():
            count = min(GROWTH * run, LONGEST) if run else START
        elif run >= LONG_RUN:
            count = LONG_RUN_AHEAD
        else:
            return []
        guesses = self._next(position, count)
        self.tallies[mechanism].guessed += len(guesses)
        for guess in guesses:
            _remember(self._guessed, guess, mechanism)
        return guesses

    def _may_guess(self) -> bool:
        waste = sum(tally.guessed - tally.wanted for tally in self.tallies.values())
        return waste <= GRACE + self.waste_share * self._touches

    def _next(self, position: int, count: int) -> list[int]:
        """The next so many positions that are not known and worth it; looks no further than four times as far."""
        guesses = []
        known = 0
        for candidate in range(position + 1, min(position + 1 + 4 * count, self._block_count)):
            if candidate in self._touched or candidate in self._guessed:
                known += 1
            elif self._is_worth(candidate):
                guesses.append(candidate)
            if len(guesses) + known >= count:
                break
        return guesses


def _remember(memory: OrderedDict[int, _Value], position: int, value: _Value) -> None:
    memory[position] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
