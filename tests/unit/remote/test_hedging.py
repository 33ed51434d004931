import pytest

from oscirc_remote.hedging import HEDGE_SHARE, HEDGES_AT_FIRST, MOST_HEDGES_SAVED, Entrant, HedgeBudget, Race

NOW = 1000.0
LATE_S, PATIENCE_S = 0.1, 1.5


def race_of(*entrants, budget=None):
    return Race(entrants, budget or HedgeBudget())


def entrant(**different):
    return Entrant(**{"hedge_after_s": LATE_S, "patience_s": PATIENCE_S, "good": True, **different})


def due(race, after_s=0.0):
    """Everybody who is to be asked now."""
    return list(iter(lambda: race.due(NOW + after_s), None))


def spent():
    budget = HedgeBudget()
    while budget.spend():
        pass
    return budget


def test_one_is_asked_first():
    assert due(race_of(entrant(), entrant())) == [0]


def test_the_next_is_asked_at_once_when_one_fails():
    race = race_of(entrant(), entrant(), entrant())
    due(race)
    race.stopped(0)
    assert due(race) == [1]
    race.stopped(1)
    assert due(race) == [2]
    assert not race.over
    race.stopped(2)
    assert race.over
    assert race.hedge is None


def test_one_that_is_late_is_hedged_once():
    race = race_of(entrant(), entrant(), entrant())
    due(race)
    assert race.next_at() == NOW + LATE_S
    assert due(race, LATE_S - 0.01) == []
    assert due(race, LATE_S) == [1]
    assert race.hedge == 1
    assert race.next_at() == NOW + LATE_S + PATIENCE_S
    assert due(race, 3 * LATE_S) == []


def test_without_budget_patience_decides():
    race = race_of(entrant(), entrant(), budget=spent())
    due(race)
    assert due(race, LATE_S) == []
    assert race.next_at() == NOW + PATIENCE_S
    assert due(race, PATIENCE_S) == [1]
    assert race.hedge is None


def test_one_after_the_other_costs_no_more_than_its_patience():
    race = race_of(entrant(), entrant(), entrant(), budget=spent())
    due(race)
    assert due(race, PATIENCE_S) == [1]
    assert race.next_at() is not None
    due(race, PATIENCE_S + LATE_S)
    assert due(race, 2 * PATIENCE_S) == [2]
    assert race.next_at() is None


def test_a_hedge_that_fails_leaves_the_first_its_patience():
    race = race_of(entrant(), entrant(), entrant())
    due(race)
    due(race, LATE_S)
    race.stopped(1)
    assert due(race, 2 * LATE_S) == []
    assert race.next_at() == NOW + PATIENCE_S
    assert due(race, PATIENCE_S) == [2]


def test_who_is_demoted_is_asked_only_when_the_others_failed():
    race = race_of(entrant(), entrant(good=False))
    due(race)
    assert race.next_at() is None
    assert due(race, 100) == []
    race.stopped(0)
    assert due(race, 100) == [1]


def test_who_is_asked_to_learn_is_hedged_for_free():
    race = race_of(entrant(learning=True, good=False), entrant(), budget=spent())
    due(race)
    assert due(race, LATE_S) == [1]


def test_one_alone_is_never_hedged():
    race = race_of(entrant())
    assert due(race) == [0]
    assert race.next_at() is None


def test_the_budget_allows_a_share_of_the_requests_and_a_few_more():
    budget, hedges = HedgeBudget(), 0
    for _ in range(1000):
        budget.earn()
        hedges += budget.spend()
    assert hedges == pytest.approx(1000 * HEDGE_SHARE + HEDGES_AT_FIRST, abs=1)


def test_the_budget_is_not_saved_for_long():
    budget, hedges = HedgeBudget(), 0
    for _ in range(10_000):
        budget.earn()
    while budget.spend():
        hedges += 1
    assert hedges == MOST_HEDGES_SAVED
