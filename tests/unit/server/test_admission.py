"""Turns for those who need no token: so many each, so many together, whatever clocks and strangers do."""

import pytest

from oscirc_server import admission
from oscirc_server.admission import Admission, Rate

HOUR_S = 3600


def test_a_burst_is_admitted_and_then_one_by_one():
    sharing = Admission(Rate(3, 6), Rate(100, 100), 0)
    assert [sharing.wait_s(b"a", 0) for _ in range(5)] == [0, 0, 0, 600, 600]
    assert sharing.wait_s(b"a", 599) == pytest.approx(1)
    assert sharing.wait_s(b"a", 600) == 0
    assert sharing.wait_s(b"a", 600) == 600


def test_turns_do_not_gather_beyond_the_burst():
    sharing = Admission(Rate(2, 60), Rate(100, 100), 0)
    assert [sharing.wait_s(b"a", 100 * HOUR_S) > 0 for _ in range(3)] == [False, False, True]


def test_one_sender_takes_no_turns_of_another():
    sharing = Admission(Rate(1, 1), Rate(3, 1), 0)
    for _ in range(50):
        sharing.wait_s(b"a", 0)
    assert [sharing.wait_s(b"b", 0), sharing.wait_s(b"c", 0)] == [0, 0]


def test_all_together_are_bounded_and_a_refusal_uses_nothing_up():
    sharing = Admission(Rate(1, 1), Rate(2, 3600), 0)
    assert [sharing.wait_s(sender, 0) for sender in (b"a", b"b", b"c")] == [0, 0, 1]
    assert sharing.wait_s(b"c", 1) == 0


def test_a_clock_that_is_set_back_gives_nothing_and_takes_nothing():
    sharing = Admission(Rate(1, 60), Rate(100, 100), 1000)
    assert sharing.wait_s(b"a", 1000) == 0
    assert sharing.wait_s(b"a", 0) == 60
    assert sharing.wait_s(b"a", 60) == 0


def test_strangers_without_end_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(admission, "MAX_SENDERS", 10)
    sharing = Admission(Rate(1, 1), Rate(10_000, 1), 0)
    assert all(sharing.wait_s(b"%d" % number, 0) == 0 for number in range(1000))
    assert len(sharing._senders) == 10
    assert sharing.wait_s(b"999", 0) > 0
