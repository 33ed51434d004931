"""A race that is run: who is asked on which thread, who is called off, and that the caller can always leave."""

import threading

import pytest

from oscirc_blockstore.errors import NotServedError, UnreachableError
from oscirc_remote import racing
from oscirc_remote.deadlines import Deadline
from oscirc_remote.hedging import Entrant, HedgeBudget, Race

from .fakes import FakeClock, SteppedClock

PROBLEM = NotServedError("it lacks the block")


def race_of(*entrants):
    return Race(entrants, HedgeBudget())


def entrant(*, good=True, learning=False, hedge_after_s=0.5, patience_s=1.5):
    return Entrant(hedge_after_s, patience_s, good, learning)


def at_once(task):
    task()


class Mirrors:
    """Each answers what the test says, when the test says; knows whether it was called off."""

    def __init__(self, count):
        self.answers = [threading.Event() for _ in range(count)]
        self.asked = [threading.Event() for _ in range(count)]
        self.called_off = {}
        self.result = dict.fromkeys(range(count), b"block")
        self.threads = []

    def ask(self, number, cancellation):
        self.asked[number].set()
        with cancellation.waking(self.answers[number]):
            assert self.answers[number].wait(20)
        if cancellation.reason:
            self.called_off[number] = cancellation.reason
            return UnreachableError(cancellation.reason)
        return self.result[number]

    def start(self, task):
        thread = threading.Thread(target=task, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def run_beside(race, mirrors, deadline):
    """Run the race on a thread of its own; returns that thread and what it will have filled."""
    finished = []
    thread = threading.Thread(
        target=lambda: finished.append(racing.run(race, mirrors.ask, mirrors.start, deadline, threading.Lock()))
    )
    thread.start()
    return thread, finished


def test_the_first_that_answers_wins_and_nobody_else_is_asked():
    asked = []

    def ask(number, _cancellation):
        asked.append(number)
        return b"block"

    finish = racing.run(race_of(entrant(), entrant()), ask, at_once, FakeClock().deadline(), threading.Lock())
    assert (finish.winner, finish.raw, finish.problems, finish.outrun) == (0, b"block", [], {})
    assert asked == [0]


def test_who_fails_is_followed_by_the_next_and_its_problem_is_kept():
    finish = racing.run(
        race_of(entrant(), entrant(), entrant()),
        lambda number, _cancellation: b"block" if number == 2 else PROBLEM,
        at_once,
        FakeClock().deadline(),
        threading.Lock(),
    )
    assert finish.winner == 2
    assert finish.problems == [(0, PROBLEM), (1, PROBLEM)]


def test_when_all_fail_there_is_no_winner():
    race = race_of(entrant(), entrant())
    finish = racing.run(race, lambda *_: PROBLEM, at_once, FakeClock().deadline(), threading.Lock())
    assert (finish.winner, finish.raw, len(finish.problems)) == (None, None, 2)


def test_who_is_still_asked_when_another_has_answered_is_called_off():
    clock, mirrors = SteppedClock(), Mirrors(2)
    thread, finished = run_beside(race_of(entrant(), entrant()), mirrors, clock.deadline())
    assert mirrors.asked[0].wait(20)
    clock.advance(0.5)
    assert mirrors.asked[1].wait(20)
    mirrors.answers[1].set()
    thread.join(20)
    mirrors.join()
    assert (finished[0].winner, list(finished[0].outrun)) == (1, [0])
    assert mirrors.called_off == {0: "another mirror answered first"}


def test_who_is_asked_to_learn_is_not_called_off():
    clock, mirrors = SteppedClock(), Mirrors(2)
    thread, finished = run_beside(race_of(entrant(learning=True), entrant()), mirrors, clock.deadline())
    assert mirrors.asked[0].wait(20)
    clock.advance(0.5)
    assert mirrors.asked[1].wait(20)
    mirrors.answers[1].set()
    thread.join(20)
    assert finished[0].winner == 1
    mirrors.answers[0].set()
    mirrors.join()
    assert mirrors.called_off == {}


def test_at_the_deadline_the_caller_leaves_and_all_are_called_off():
    clock, mirrors = SteppedClock(), Mirrors(1)
    thread, finished = run_beside(race_of(entrant()), mirrors, clock.deadline(2.0))
    assert mirrors.asked[0].wait(20)
    clock.advance(2.0)
    thread.join(20)
    mirrors.join()
    assert (finished[0].winner, list(finished[0].outrun)) == (None, [0])
    assert 0 in mirrors.called_off


def test_a_caller_that_is_called_off_leaves_whoever_is_stuck():
    """Name resolution, say, which nothing interrupts."""
    stuck = threading.Event()
    deadline = Deadline.after(60)
    started = []

    def start(task):
        started.append(threading.Thread(target=task, daemon=True))
        started[0].start()

    def ask(*_):
        deadline.cancellation.cancel("the guest is stopped")
        assert stuck.wait(20)
        return b"block"

    finish = racing.run(race_of(entrant()), ask, start, deadline, threading.Lock())
    assert finish.winner is None
    stuck.set()
    started[0].join(20)


def test_without_a_thread_the_caller_asks_itself():
    def none_left(_task):
        raise RuntimeError("can't start new thread")

    finish = racing.run(race_of(entrant()), lambda *_: b"block", none_left, FakeClock().deadline(), threading.Lock())
    assert finish.raw == b"block"


def test_who_raises_is_counted_as_one_that_could_not_be_asked():
    def start(task):
        with pytest.raises(ZeroDivisionError):
            task()

    race = race_of(entrant(), entrant())

    def ask(number, _cancellation):
        return b"block" if number else 1 / 0

    finish = racing.run(race, ask, start_first_raising(start), FakeClock().deadline(), threading.Lock())
    assert finish.winner == 1
    assert isinstance(finish.problems[0][1], UnreachableError)


def start_first_raising(start):
    tasks = []

    def run(task):
        tasks.append(task)
        (start if len(tasks) == 1 else at_once)(task)

    return run
