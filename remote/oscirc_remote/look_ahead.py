"""What reads of one image tell whoever fetches ahead: where they were, what comes next, how far ahead is far enough.

Between the reader, which tells each read, and the prefetcher, which waits here:

- until reads have begun in earnest (`wait_for_reads`): a mount that nobody boots from fetches nothing on a guess;
- for room (`wait_for_room`): of what was foreseen only so much may lie ahead of the reads as they have wanted of it
  (`LEAD_GROWTH` times as many blocks, at least `LEAD_START` and at most `LEAD_MOST`). Who reads something else than
  was foreseen has paid for few blocks.

Guesses of neighbours (`readahead`) are silent until `guess` is called: while a bundle or a profile comes, what will be
read is known better. They pass over what whoever used an earlier version did not need (`left_alone`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from oscirc_remote.left_alone import LeftAlone
from oscirc_remote.readahead import ReadAhead

START_TOUCHES = 4
LEAD_START, LEAD_GROWTH, LEAD_MOST = 48, 4, 512
FORESEEN_WASTE_SHARE = 0.15
_LOOK_S = 0.5


class LookAhead:
    """One image's `AheadPolicy`. Safe for threads."""

    def __init__(self, block_count: int, is_worth: Callable[[int], bool], left_alone: LeftAlone | None = None) -> None:
        def is_worth_a_guess(position: int) -> bool:
            return is_worth(position) and not (left_alone and left_alone.passes_guess(position))

        self._read_ahead = ReadAhead(block_count, is_worth_a_guess)
        self._left_alone = left_alone
        self._changed = threading.Condition()
        self._begun: set[int] = set()
        self._guessing = False
        self._foreseen: set[int] = set()
        self._ahead = self._wanted = 0
        self._signs: dict[int, int] = {}  # position to the number of the condition that a read of it fulfils
        self._fulfilled: deque[int] = deque()

    def on_access(self, first_position: int, last_position: int, *, waited: bool) -> Sequence[int]:
        """A read touched these positions, and had to wait or not: those worth fetching now, in order."""
        with self._changed:
            self._note(first_position, last_position, waited=waited)
            if self._guessing:
                return self._read_ahead.on_access(first_position, last_position, waited=waited)
            for position in range(first_position, last_position + 1):
                self._read_ahead.foresee(position)
            return ()

    def _note(self, first_position: int, last_position: int, *, waited: bool) -> None:
        if len(self._begun) < START_TOUCHES:
            self._begun.update(range(first_position, last_position + 1))
        for position in range(first_position, last_position + 1):
            if self._left_alone and not self._read_ahead.is_touched(position):
                self._left_alone.note(position, present=not waited)
            if position in self._foreseen:
                self._foreseen.discard(position)
                self._wanted += 1
                self._ahead -= 1
            self._see_sign(position)
        self._changed.notify_all()

    def _see_sign(self, position: int) -> None:
        condition = self._signs.get(position)
        if condition is not None:
            self._fulfilled.append(condition)
            self._signs = {sign: other for sign, other in self._signs.items() if other != condition}

    def guess(self) -> None:
        """From now on neighbours are guessed."""
        with self._changed:
            self._guessing = True

    def foresee(self, positions: Sequence[int]) -> None:
        """These are fetched without being guessed, or would be if they were not here."""
        with self._changed:
            self._read_ahead.waste_share = FORESEEN_WASTE_SHARE
            for position in positions:
                self._read_ahead.foresee(position)

    def watch_for(self, signs: Mapping[int, int]) -> None:
        """Of these positions, with the number of a condition each, a read fulfils that; also one before this call."""
        with self._changed:
            self._signs = dict(signs)
            for position in list(signs):
                if self._read_ahead.is_touched(position):
                    self._see_sign(position)

    def fulfilled(self) -> int | None:
        """The next condition that reads have fulfilled, each once; None for none so far."""
        with self._changed:
            return self._fulfilled.popleft() if self._fulfilled else None

    def wait_for_sign(self, is_over: Callable[[], bool]) -> bool:
        """Until reads have fulfilled another condition; False when it is over before, or none is left."""
        self._wait(lambda: bool(self._fulfilled) or not self._signs, is_over)
        return bool(self._fulfilled)

    def wait_for_reads(self, is_over: Callable[[], bool]) -> None:
        """Until a guest, or whoever, has begun to read."""
        self._wait(lambda: len(self._begun) >= START_TOUCHES, is_over)

    def has_room(self) -> bool:
        """Whether one more foreseen block may be fetched now."""
        return self._ahead < min(LEAD_MOST, LEAD_START + LEAD_GROWTH * self._wanted)

    def wait_for_room(self, is_over: Callable[[], bool]) -> None:
        """Until reads have caught up with what was foreseen."""
        self._wait(self.has_room, is_over)

    def fetching(self, position: int) -> None:
        """A foreseen block is fetched now, ahead of the reads."""
        with self._changed:
            if position not in self._foreseen:
                self._foreseen.add(position)
                self._ahead += 1

    def _wait(self, until: Callable[[], bool], is_over: Callable[[], bool]) -> None:
        with self._changed:
            while not until() and not is_over():
                self._changed.wait(_LOOK_S)
