import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fault_server import FaultServer

from oscirc_remote.http_client import HttpClient
from oscirc_remote.rate_limits import BURST_S, RateLimit

from .fakes import FakeClock


def test_what_is_within_the_rate_is_not_held_up():
    clock = FakeClock()
    limit = RateLimit(1000.0, clock=clock)
    for _ in range(10):
        clock.now += 0.1
        limit.spend(100, clock.deadline())
    assert clock.waits == []


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50))
def test_the_average_holds_whatever_the_sizes(sizes):
    clock = FakeClock()
    limit, began = RateLimit(1000.0, clock=clock), clock.now
    for size in sizes:
        limit.spend(size, clock.deadline(1e9))
    assert clock.now - began == pytest.approx(sum(sizes) / 1000.0)


def test_after_a_pause_only_a_burst_is_free():
    clock = FakeClock()
    limit = RateLimit(1000.0, clock=clock)
    clock.now += 3600
    limit.spend(1000, clock.deadline(10))
    assert clock.waits == [pytest.approx(1.0 - BURST_S)]


def test_nobody_waits_beyond_a_deadline_but_what_came_stays_owed():
    clock = FakeClock()
    limit = RateLimit(1000.0, clock=clock)
    limit.spend(10_000, clock.deadline(2.0))
    assert clock.waits == [pytest.approx(2.0)]
    limit.spend(1, clock.deadline(60.0))
    assert clock.waits[1] == pytest.approx(8.001)


def test_who_is_called_off_does_not_wait():
    clock = FakeClock()
    deadline = clock.deadline()
    deadline.cancellation.cancel("closing")
    RateLimit(1.0, clock=clock).spend(100, deadline)
    assert clock.waits == []


@pytest.mark.parametrize("rate", [0, -1.0])
def test_a_limit_must_let_something_through(rate):
    with pytest.raises(ValueError, match="above zero"):
        RateLimit(rate)


@pytest.mark.parametrize(("rate", "blocks"), [(1, 1), (10_000, 1), (100_000, 3), (1_000_000, 8), (1e9, 8)])
def test_under_a_low_rate_few_things_are_fetched_at_once_so_that_each_comes_in_time(rate, blocks):
    assert RateLimit(rate).at_once(262_144, 8) == blocks


def test_bodies_over_http_keep_the_rate_on_all_connections_together():
    clock = FakeClock()
    limit, began = RateLimit(100_000, clock=clock), clock.now
    with FaultServer({"a": bytes(250_000), "b": bytes(50_000)}) as server:
        clients = [HttpClient(server.url, rate_limit=limit) for _ in range(2)]
        for client in clients:
            client.get("a", 1 << 20, clock.deadline(1e6))
        with clients[0].stream("b", 0, 50_000, clock.deadline(1e6), whole=True) as body:
            assert len(body.read_all(50_000)) == 50_000
        for client in clients:
            client.close()
    assert clock.now - began == pytest.approx(5.5, rel=0.02)
