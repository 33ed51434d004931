import threading

import pytest

from oscirc_remote import look_ahead
from oscirc_remote.look_ahead import LEAD_GROWTH, LEAD_MOST, LEAD_START, START_TOUCHES, LookAhead

COUNT = 10_000


@pytest.fixture
def ahead():
    return LookAhead(COUNT, lambda _position: True)


def touch(ahead, *positions, waited=True):
    return [guess for position in positions for guess in ahead.on_access(position, position, waited=waited)]


def test_it_is_silent_until_it_may_guess(ahead):
    assert touch(ahead, 100, 101, 102) == []
    ahead.guess()
    assert touch(ahead, 103)


def test_reads_begin_with_the_fourth_place(ahead):
    touch(ahead, *[7] * 20, 8, 9)
    over = iter([False, True])
    ahead_waits = threading.Thread(target=ahead.wait_for_reads, args=(lambda: False,))
    ahead.wait_for_reads(lambda: next(over))  # returned because it is over, not because of the reads
    ahead_waits.start()
    touch(ahead, 10)
    ahead_waits.join(10)
    assert not ahead_waits.is_alive()
    assert START_TOUCHES == 4


def test_what_was_foreseen_lies_only_so_far_ahead_as_reads_have_shown_it_right(ahead):
    foreseen = list(range(1000, 1000 + LEAD_START + 10))
    ahead.foresee(foreseen)
    taken = 0
    while ahead.has_room():
        ahead.fetching(foreseen[taken])
        taken += 1
    assert taken == LEAD_START
    touch(ahead, foreseen[0], waited=False)
    assert ahead.has_room()
    more = 0
    while ahead.has_room():
        ahead.fetching(5000 + more)
        more += 1
    assert more == 1 + LEAD_GROWTH


def test_reads_of_something_else_give_no_room(ahead):
    for position in range(LEAD_START):
        ahead.fetching(position)
    touch(ahead, *range(2000, 2500))
    assert not ahead.has_room()


def test_the_lead_has_a_limit(ahead):
    for position in range(LEAD_MOST):
        ahead.fetching(position)
        touch(ahead, position)
    taken = 0
    while ahead.has_room():
        ahead.fetching(5000 + taken)
        taken += 1
    assert taken == LEAD_MOST


def test_who_waits_for_room_goes_on_when_reads_catch_up(ahead, monkeypatch):
    monkeypatch.setattr(look_ahead, "_LOOK_S", 60.0)
    for position in range(LEAD_START):
        ahead.fetching(position)
    waiting = threading.Thread(target=ahead.wait_for_room, args=(lambda: False,))
    waiting.start()
    touch(ahead, 0)
    waiting.join(10)
    assert not waiting.is_alive()


def test_reads_of_what_was_foreseen_guess_nothing(ahead):
    ahead.guess()
    ahead.foresee([100, 101, 102, 103])
    assert touch(ahead, 100, 101, 102) == []
    assert touch(ahead, 104)


def test_a_read_of_a_sign_fulfils_its_condition_once(ahead):
    ahead.watch_for({500: 0, 501: 0, 600: 1})
    touch(ahead, 501)
    assert ahead.fulfilled() == 0
    touch(ahead, 500)
    assert ahead.fulfilled() is None
    assert ahead.wait_for_sign(lambda: True) is False
    touch(ahead, 600)
    assert ahead.wait_for_sign(lambda: False)
    assert ahead.fulfilled() == 1
    assert not ahead.wait_for_sign(lambda: False)  # none is left


def test_a_sign_that_was_read_before_anybody_watched_counts(ahead):
    touch(ahead, 500)
    ahead.watch_for({500: 3})
    assert ahead.fulfilled() == 3


def test_who_waits_for_a_sign_goes_on_when_it_is_read(ahead, monkeypatch):
    monkeypatch.setattr(look_ahead, "_LOOK_S", 60.0)
    ahead.watch_for({500: 0})
    waiting = threading.Thread(target=ahead.wait_for_sign, args=(lambda: False,))
    waiting.start()
    touch(ahead, 500)
    waiting.join(10)
    assert not waiting.is_alive()
