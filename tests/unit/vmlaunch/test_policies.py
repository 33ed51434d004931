import itertools

import pytest

from oscirc_vmlaunch.policies import Action, Policy, Situation, decide

OLD, NEW = "aa" * 32, "bb" * 32
BOTH = list(itertools.product((False, True), repeat=2))


def situation(**changes):
    facts = {"stands_on": OLD, "wanted": NEW, "is_written": True, "is_ephemeral": False, "is_running": False}
    return Situation(**(facts | changes))


@pytest.mark.parametrize("policy", list(Policy))
def test_what_stands_on_the_wanted_version_stays_whatever_else(policy):
    for written, ephemeral, running in itertools.product((False, True), repeat=3):
        one = situation(wanted=OLD, is_written=written, is_ephemeral=ephemeral, is_running=running)
        assert decide(one, policy) is Action.NOTHING


@pytest.mark.parametrize("policy", [Policy.REFUSE, Policy.DROP_SYSTEM])
def test_what_has_written_nothing_or_is_thrown_away_moves(policy):
    assert decide(situation(is_written=False), policy) is Action.MOVE
    assert decide(situation(is_ephemeral=True), policy) is Action.MOVE


def test_what_was_written_moves_only_when_somebody_said_that_it_may_be_set_aside():
    assert decide(situation(), Policy.REFUSE) is Action.REFUSE_WRITTEN
    assert decide(situation(), Policy.DROP_SYSTEM) is Action.DROP_SYSTEM


@pytest.mark.parametrize(("written", "running"), BOTH)
def test_who_keeps_its_version_is_never_moved(written, running):
    assert decide(situation(is_written=written, is_running=running), Policy.KEEP) is Action.KEEP


@pytest.mark.parametrize("policy", [Policy.REFUSE, Policy.DROP_SYSTEM])
@pytest.mark.parametrize(("written", "ephemeral"), BOTH)
def test_what_runs_is_not_moved(policy, written, ephemeral):
    one = situation(is_written=written, is_ephemeral=ephemeral, is_running=True)
    assert decide(one, policy) is Action.REFUSE_RUNNING
