import threading

import pytest

from oscirc_remote.arrivals import LONGEST_WAIT_S, NOTHING_ARRIVES, PATIENCE_S, STALLED_S, Arrivals, patience

from .fakes import FakeClock, SteppedClock

A, B = b"a" * 32, b"b" * 32


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def arrivals(clock):
    return Arrivals(clock)


def test_before_the_index_is_known_everything_may_come_for_a_while(arrivals, clock):
    assert arrivals.expects(A)
    clock.now += PATIENCE_S
    assert not arrivals.expects(A)


def test_what_comes_soon_at_the_present_rate_is_expected_and_what_comes_late_is_not(arrivals, clock):
    arrivals.expect({A: 1000, B: 10_000}, 0)
    clock.now += 0.5
    arrivals.moved(500)  # 1000 bytes a second
    assert arrivals.progress.rate == 1000
    assert arrivals.expects(A)
    assert not arrivals.expects(B)


def test_a_stream_that_stalls_brings_nothing(arrivals, clock):
    arrivals.expect({A: 400}, 0)
    clock.now += 0.1
    arrivals.moved(100)
    clock.now += STALLED_S + 0.1
    assert not arrivals.expects(A)
    arrivals.moved(200)
    assert arrivals.expects(A)


def test_what_has_come_or_will_not_is_not_expected(arrivals):
    arrivals.expect({A: 1000, B: 2000}, 0)
    arrivals.moved(1000, [A])
    assert not arrivals.expects(A)
    arrivals.end()
    assert not arrivals.expects(B)


def test_a_rate_that_somebody_else_measured_counts(arrivals):
    arrivals.expect({A: 10_000}, 0)
    arrivals.moved(0, rate=1.0)
    assert not arrivals.expects(A)
    arrivals.moved(0, rate=1e6)
    assert arrivals.expects(A)


def test_one_read_waits_for_half_its_time_and_never_long(clock):
    assert patience(clock.deadline(2.0)).remaining_s() == 1.0
    assert patience(clock.deadline(60.0)).remaining_s() == LONGEST_WAIT_S
    read = clock.deadline(2.0)
    clock.now += 0.75
    assert patience(read).remaining_s() == 0.25  # the first block of the same read took the rest
    clock.now += 0.75
    assert patience(read).remaining_s() == 0.0


def test_a_promise_that_is_not_kept_costs_no_more_than_the_patience(arrivals, clock):
    """A mirror that moves on and on and never brings the block."""
    arrivals.expect({A: 1 << 40}, 0)
    began = clock.now
    offset = 0

    def wait(event, timeout_s):
        nonlocal offset
        clock.now += timeout_s
        offset += 1 << 38
        arrivals.moved(offset, rate=1e12)
        return event.is_set()

    clock.wait = wait
    assert arrivals.wait(A, patience(clock.deadline(10.0)))
    assert clock.now - began <= LONGEST_WAIT_S + STALLED_S


def test_who_waits_is_woken_by_the_arrival():
    clock = SteppedClock()
    arrivals = Arrivals(clock)
    arrivals.expect({A: 1000}, 0)
    waited = []
    thread = threading.Thread(target=lambda: waited.append(arrivals.wait(A, clock.deadline())))
    thread.start()
    arrivals.moved(1000, [A])
    thread.join(10)
    assert not thread.is_alive()


def test_where_nothing_arrives_nobody_waits():
    assert not NOTHING_ARRIVES.wait(A, FakeClock().deadline())
