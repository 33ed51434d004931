"""Runs one race for a block (`hedging` has the rules): each mirror is asked on a thread of its own.

The caller's thread only waits, so that it can leave whatever a mirror does to the thread that asks it: even name
resolution, which nothing can interrupt, holds up no read. Who is still being asked when another has answered is called
off, and its connection closed with it; except who is asked to learn how it does.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from oscirc_blockstore.errors import OscircError, UnreachableError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.hedging import Race

Ask = Callable[[int, Cancellation], bytes | OscircError]
"""Asks the entrant of this number, until it answers, fails or is called off; raises nothing."""

Start = Callable[[Callable[[], None]], None]
"""Has a task run on another thread; raises `RuntimeError` where there is none."""


@dataclass(slots=True)
class Finish:
    """How a race ended: the winner's answer, or none; what others said; who was still being asked, and since when."""

    winner: int | None = None
    raw: bytes | None = None
    problems: list[tuple[int, OscircError]] = field(default_factory=list)
    outrun: dict[int, float] = field(default_factory=dict)


class _Course:
    """A race under way, as its caller's thread sees it."""

    def __init__(self, race: Race, ask: Ask, start: Start) -> None:
        self.race = race
        self.finish = Finish()
        self.changed = threading.Event()
        self._ask = ask
        self._start = start
        self._landed: SimpleQueue[tuple[int, bytes | OscircError]] = SimpleQueue()
        self._called_off: dict[int, Cancellation] = {}

    def collect(self) -> bool:
        """Take what has come; whether that decides the race."""
        self.changed.clear()
        while self.finish.raw is None and not self._landed.empty():
            number, answer = self._landed.get()
            self.race.stopped(number)
            if isinstance(answer, bytes):
                self.finish.winner, self.finish.raw = number, answer
            else:
                self.finish.problems.append((number, answer))
        return self.finish.raw is not None or self.race.over

    def start(self, number: int) -> None:
        """Have one asked."""
        self._called_off[number] = Cancellation()
        try:
            self._start(functools.partial(self._asking, number))
        except RuntimeError:  # no thread to be had
            self._asking(number)

    def end(self, reason: str) -> Finish:
        """Call off who is still being asked, but for learning where there was an answer."""
        self.finish.outrun = dict(self.race.running)
        for number in self.finish.outrun:
            if not self.race.entrants[number].learning or self.finish.raw is None:
                self._called_off[number].cancel(reason)
        return self.finish

    def _asking(self, number: int) -> None:
        answer: bytes | OscircError = UnreachableError("it could not be asked")
        try:
            answer = self._ask(number, self._called_off[number])
        finally:
            self._landed.put((number, answer))
            self.changed.set()


def run(race: Race, ask: Ask, start: Start, deadline: Deadline, lock: threading.Lock) -> Finish:
    """Race until one has answered, all have failed or the deadline is over; `lock` guards what the race shares."""
    course = _Course(race, ask, start)
    while not course.collect() and deadline.remaining_s() > 0:
        now = deadline.clock.monotonic()
        with lock:
            due = race.due(now)
        if due is not None:
            course.start(due)
            continue
        next_at = race.next_at()
        (deadline if next_at is None else deadline.at_most(next_at - now)).wait(course.changed)
    return course.end(deadline.cancellation.reason or "another mirror answered first")
