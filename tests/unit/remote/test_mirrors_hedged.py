"""Several mirrors with real threads under a clock that the test steps: who is asked when, and who is called off."""

import threading

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DeadlineExceededError, OscircError, UnreachableError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.mirrors import FIRST_SAMPLE, PATIENCE_S, SAMPLE_EVERY, MirroredSource
from oscirc_remote.standing import FIRST_DEMOTION_S, HEDGE_UNKNOWN_S

from .fakes import BLOCK_SIZE, GatedFrames, SteppedClock, block, blocks

RAW = block(1)
DIGEST = digest_of(RAW)


class World:
    def __init__(self):
        self.clock = SteppedClock()
        self.first, self.second = (GatedFrames(name, blocks(1), self.clock) for name in ("first", "second"))
        self.source = MirroredSource([self.first, self.second], clock=self.clock)
        self.threads = []

    def fetch(self, seconds=30.0, cancellation=None):
        """A fetch on a thread of its own; returns what it gives, when it has ended."""
        ended, got = threading.Event(), []

        def run():
            try:
                deadline = Deadline.after(seconds, cancellation or Cancellation(), self.clock)
                got.append(self.source.fetch(DIGEST, BLOCK_SIZE, deadline))
            except OscircError as error:
                got.append(error)
            ended.set()

        def result():
            assert ended.wait(20)
            return got[0]

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)
        return result

    def status(self, name):
        return next(status for status in self.source.mirror_status() if status.name == name)

    def serve(self, times):
        """Fetches that are answered at once, by whoever is asked."""
        self.first.gate.set()
        self.second.gate.set()
        for _ in range(times):
            assert self.fetch()() == RAW
        self.first.gate.clear()
        self.second.gate.clear()

    def forget_requests(self):
        for mirror in (self.first, self.second):
            mirror.asked.clear()
            mirror.was_asked = threading.Semaphore(0)


def asked(mirror):
    return mirror.was_asked.acquire(timeout=20)


@pytest.fixture
def world():
    world = World()
    yield world
    world.first.gate.set()
    world.second.gate.set()
    for thread in world.threads:
        thread.join(20)
    world.source.close()


def test_the_second_is_asked_when_the_first_is_late_and_the_first_answer_wins(world):
    result = world.fetch()
    assert asked(world.first)
    world.clock.advance(HEDGE_UNKNOWN_S - 0.01)
    assert not world.second.was_asked.acquire(blocking=False)
    world.clock.advance(0.01)
    assert asked(world.second)
    world.second.gate.set()
    assert result() == RAW
    assert world.first.called_off.wait(20)
    first, second = world.status("first"), world.status("second")
    assert (first.failures, first.demoted) == (0, False)
    assert (second.hedges, second.hedge_wins) == (1, 1)
    assert first.score > 0  # it is known to be no faster than this


def test_a_first_mirror_that_is_late_but_still_first_wins(world):
    result = world.fetch()
    world.clock.advance(HEDGE_UNKNOWN_S)
    assert asked(world.second)
    world.first.gate.set()
    assert result() == RAW
    assert world.second.called_off.wait(20)
    assert (world.status("second").hedges, world.status("second").hedge_wins) == (1, 0)


def test_beyond_the_budget_a_dead_mirror_costs_its_patience_and_is_demoted(world):
    while world.source._budget.spend():
        pass
    result = world.fetch()
    assert asked(world.first)
    world.clock.advance(PATIENCE_S - 0.01)
    assert not world.second.was_asked.acquire(blocking=False)
    world.clock.advance(0.01)
    assert asked(world.second)
    world.second.gate.set()
    assert result() == RAW
    assert world.first.called_off.wait(20)
    first, second = world.status("first"), world.status("second")
    assert (first.demoted, first.failures) == (True, 1)
    assert second.hedges == 0


def test_one_hedge_that_wins_is_enough_to_ask_the_faster_first(world):
    result = world.fetch()
    world.clock.advance(HEDGE_UNKNOWN_S)
    world.second.gate.set()
    assert result() == RAW
    assert world.source.preferred() == ["second", "first"]


def test_a_dead_mirror_and_another_that_fails_leave_the_read_its_deadline(world, monkeypatch):
    monkeypatch.setattr(world.source._workers, "_idle_s", 300)
    world.second.script = lambda past_caches: UnreachableError("down")
    world.second.gate.set()
    result = world.fetch(10)
    assert asked(world.first)
    world.clock.advance(PATIENCE_S)
    assert asked(world.second)
    while not world.source._workers._idle:  # only when its answer is there may time pass beyond the deadline
        threading.Event().wait(0.005)
    world.clock.advance(10)
    error = result()
    assert isinstance(error, UnreachableError)
    assert error.retryable
    assert "first did not answer" in str(error)
    assert "second: down" in str(error)


def test_a_reader_that_leaves_is_let_go_at_once_and_calls_all_off(world):
    cancellation = Cancellation()
    result = world.fetch(30, cancellation)
    world.clock.advance(HEDGE_UNKNOWN_S)
    assert asked(world.second)
    cancellation.cancel("reads are being failed")
    assert isinstance(result(), DeadlineExceededError)
    assert world.first.called_off.wait(20)
    assert world.second.called_off.wait(20)
    assert not world.status("first").demoted
    assert not world.status("second").demoted


def test_a_probe_holds_up_no_read_and_restores_the_mirror_when_it_is_done(world):
    world.first.script = lambda past_caches: UnreachableError("down")
    world.serve(1)
    world.first.script = lambda past_caches: None
    world.clock.now += FIRST_DEMOTION_S
    world.forget_requests()
    result = world.fetch()
    assert asked(world.first)
    world.clock.advance(HEDGE_UNKNOWN_S)
    assert asked(world.second)
    world.second.gate.set()
    assert result() == RAW
    assert world.status("first").demoted
    assert not world.first.called_off.is_set()
    world.first.gate.set()
    while world.status("first").demoted:  # noted by the thread that asked
        pass
    assert world.status("second").hedges == 1


def test_a_probe_that_fails_costs_only_its_answer(world):
    world.first.script = lambda past_caches: UnreachableError("down")
    world.serve(1)
    world.clock.now += FIRST_DEMOTION_S
    world.serve(1)
    assert world.status("first").demoted_for_s == 2 * FIRST_DEMOTION_S


def test_the_second_mirror_is_sampled_now_and_then(world):
    world.first.costs_s = world.second.costs_s = 0.01
    world.serve(FIRST_SAMPLE - 1)
    assert world.status("second").requests == 0
    world.serve(1)
    assert world.status("second").requests == 1
    world.serve(SAMPLE_EVERY)
    assert world.status("second").requests == 1  # its score is still new
    world.clock.now += 100
    world.serve(SAMPLE_EVERY)
    assert world.status("second").requests == 2
    assert world.status("first").score > 0
    assert world.status("second").score > 0


def test_the_faster_mirror_is_asked_once_it_is_known(world):
    world.first.costs_s, world.second.costs_s = 0.4, 0.02
    world.serve(FIRST_SAMPLE)
    assert world.source.preferred() == ["second", "first"]
    world.forget_requests()
    world.serve(10)
    assert world.first.requests == 0


def test_preferring_hands_out_no_probe(world):
    world.first.script = lambda past_caches: UnreachableError("down")
    world.serve(1)
    world.clock.now += FIRST_DEMOTION_S
    assert world.source.preferred() == ["second", "first"]
    assert world.status("first").demoted_for_s == 0


def test_a_transfer_that_somebody_else_made_counts(world):
    world.source.report("first", None, received_bytes=10_000_000, seconds=1.0)
    assert world.status("first").throughput == 10_000_000
    assert world.source.rate() == 10_000_000
    world.source.report("first", UnreachableError("broke off"), received_bytes=0)
    assert world.source.preferred() == ["second", "first"]
    assert world.status("first").last_problem == "broke off"


def test_round_trip_rate_and_window_are_learnt_from_what_was_served(world):
    world.first.costs_s = 0.1
    world.serve(5)
    assert world.source.round_trip_s() == pytest.approx(0.1)
    assert world.source.window() >= 2


def test_without_threads_mirrors_are_asked_one_after_the_other():
    def refuse(task):
        raise RuntimeError("can't start new thread")

    clock = SteppedClock()
    mirrors = [GatedFrames(name, blocks(1), clock) for name in ("first", "second")]
    mirrors[0].script = lambda past_caches: UnreachableError("down")
    for mirror in mirrors:
        mirror.gate.set()
    source = MirroredSource(mirrors, clock=clock, start=refuse)
    assert source.fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
