import pytest

from oscirc_remote.departures import FILL_AT_ONCE, MOST_QUEUED, QUIET_S, Departures
from oscirc_remote.sources import Urgency

DEMAND, AHEAD, FILL = Urgency
NOW = 1000.0


def digest(number):
    return number.to_bytes(32, "big")


@pytest.fixture
def window():
    return [2]


@pytest.fixture
def departures(window):
    return Departures(4, lambda: window[0])


def started(departures, now=NOW):
    return [(int.from_bytes(started), urgency) for started, urgency in departures.due(now)]


def add(departures, urgency, *numbers, now=NOW):
    return [departures.add(digest(number), urgency, now) for number in numbers]


def test_what_a_read_waits_for_starts_whatever_else_waits_and_flies(departures):
    add(departures, FILL, 1, 2, 3)
    add(departures, AHEAD, *range(10, 20))
    started(departures)
    add(departures, DEMAND, 30, 31)
    assert started(departures) == [(30, DEMAND), (31, DEMAND)]


def test_reads_beyond_the_greatest_number_of_flights_queue_in_order(departures):
    add(departures, DEMAND, *range(6))
    assert started(departures) == [(n, DEMAND) for n in range(4)]
    departures.landed(DEMAND, NOW)
    assert started(departures) == [(4, DEMAND)]


def test_what_is_fetched_ahead_starts_in_order_within_the_window(departures, window):
    add(departures, AHEAD, *range(6))
    assert started(departures) == [(0, AHEAD), (1, AHEAD)]
    assert started(departures) == []
    departures.landed(AHEAD, NOW)
    assert started(departures) == [(2, AHEAD)]
    window[0] = 4
    assert started(departures) == [(3, AHEAD), (4, AHEAD)]
    window[0] = 1
    departures.landed(AHEAD, NOW)
    assert started(departures) == []


def test_the_oldest_guess_is_dropped_for_the_newest(departures):
    assert add(departures, AHEAD, *range(MOST_QUEUED)) == [None] * MOST_QUEUED
    assert add(departures, AHEAD, 5000) == [digest(0)]
    assert started(departures) == [(1, AHEAD), (2, AHEAD)]


def test_what_waits_starts_at_once_when_a_read_asks_for_it(departures):
    add(departures, AHEAD, *range(10))
    started(departures)
    assert departures.promote(digest(9), DEMAND)
    assert started(departures) == [(9, DEMAND)]


def test_what_flies_or_waits_more_urgently_is_not_promoted(departures):
    add(departures, AHEAD, 1, 2, 3)
    started(departures)
    assert not departures.promote(digest(1), DEMAND)  # flies
    assert not departures.promote(digest(3), FILL)
    assert not departures.promote(digest(3), AHEAD)


def test_filling_moves_up_to_ahead(departures):
    add(departures, DEMAND, 1)
    add(departures, FILL, 2)
    started(departures)
    assert departures.promote(digest(2), AHEAD)
    assert started(departures) == [(2, AHEAD)]


def test_filling_waits_until_no_read_has_waited_for_a_while(departures):
    add(departures, DEMAND, 1)
    add(departures, FILL, 2, 3, 4, 5)
    assert started(departures) == [(1, DEMAND)]
    assert departures.due_in_s(NOW + 100) is None  # only a landing can start it
    departures.landed(DEMAND, NOW + 1)
    assert started(departures, NOW + 1) == []
    assert departures.due_in_s(NOW + 1) == pytest.approx(QUIET_S)
    assert started(departures, NOW + 1 + QUIET_S) == [(2, FILL), (3, FILL)]
    assert FILL_AT_ONCE == 2
    assert departures.due_in_s(NOW + 1 + QUIET_S) is None


def test_filling_pauses_for_a_read_that_joins_what_flies_already(departures):
    add(departures, FILL, 1, 2, 3)
    started(departures)
    departures.asked(DEMAND, NOW + 9)
    departures.landed(FILL, NOW + 9)
    assert started(departures, NOW + 9) == []
    assert started(departures, NOW + 9 + QUIET_S) == [(3, FILL)]


def test_filling_waits_for_what_is_wanted_ahead(departures):
    add(departures, AHEAD, 1, 2, 3)
    add(departures, FILL, 4)
    assert started(departures) == [(1, AHEAD), (2, AHEAD)]
    departures.landed(AHEAD, NOW)
    assert started(departures) == [(3, AHEAD), (4, FILL)]


def test_guesses_that_wait_can_be_given_up(departures):
    add(departures, AHEAD, *range(5))
    add(departures, FILL, 7)
    started(departures)
    assert departures.abandon(AHEAD) == [digest(2), digest(3), digest(4)]
    departures.landed(AHEAD, NOW)
    assert started(departures) == [(7, FILL)]
