"""Whom to ask next for a bundle, and whether at all. Pure.

A round asks each mirror once; who failed in it is skipped until the next, before which there is a pause that grows. A
block that came begins all anew. It ends when nothing that failed in a round can heal (404, lies), when servers refuse
`REFUSALS` rounds in a row, and when bytes came `MOST_IN_VAIN` times without one block more (a file that is too short,
say). A network that is gone is waited for.
"""

from __future__ import annotations

from oscirc_blockstore.errors import DeadlineExceededError, OscircError, UnreachableError
from oscirc_remote.asking import may_heal

REFUSALS = 4
MOST_IN_VAIN = 20
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Tries:
    """Which mirrors failed in this round, and whether another round makes sense."""

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.pause_s = 0.0
        self._rounds = self._in_vain = 0
        self._begin_round()

    def _begin_round(self) -> None:
        self.skip = frozenset[str]()
        self._heals = self._network = False

    def failed(self, name: str, error: OscircError, *, brought: bool, received: bool) -> None:
        """A mirror did. Whether it brought a block counts: one that always fails at the same place brings none."""
        if brought:
            self._begin_anew()
        elif received:
            self._in_vain += 1
        self._heals = self._heals or may_heal(error)
        self._network = self._network or isinstance(error, (UnreachableError, DeadlineExceededError))
        self.skip |= {name}

    def next_round(self) -> bool:
        """Begin it, after `pause_s`; False where it would be in vain."""
        self._rounds += 1
        refused = self._rounds > REFUSALS and not self._network
        if self.skip and (not self._heals or refused or self._in_vain >= MOST_IN_VAIN):
            return False
        self.pause_s = min(2 * self.pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._begin_round()
        return True
