import pytest

from oscirc_blockstore.errors import DigestMismatchError, NotServedError, ServerRefusedError, UnreachableError
from oscirc_remote.pacing import TYPICAL_FRAME_BYTES
from oscirc_remote.standing import (
    FEW,
    FIRST_DEMOTION_S,
    HEDGE_MAX_S,
    HEDGE_MIN_S,
    HEDGE_UNKNOWN_S,
    LIE_DEMOTION_S,
    LONGEST_DEMOTION_S,
    LONGEST_RETRY_AFTER_S,
    TROUBLE_HALVED_S,
    Standing,
    ranked,
)

NOW = 1000.0
DOWN = UnreachableError("down")
LIE = DigestMismatchError("a lie")


def serving(first_byte_s, *, rate=10e6, times=30, standing=None, now=NOW):
    standing = standing or Standing()
    for _ in range(times):
        seconds = first_byte_s + TYPICAL_FRAME_BYTES / rate
        standing.served(now, seconds=seconds, first_byte_s=first_byte_s, size=TYPICAL_FRAME_BYTES)
    return standing


def test_the_score_is_the_time_that_a_typical_frame_takes():
    assert serving(0.1, times=200).score_s(NOW) == pytest.approx(0.1 + TYPICAL_FRAME_BYTES / 10e6, rel=0.01)


def test_answers_that_vary_score_worse_than_regular_ones():
    regular, varying = serving(0.1), Standing()
    for seconds in (0.05, 0.15) * 15:
        varying.served(NOW, seconds=seconds, first_byte_s=seconds, size=0)
    assert varying.deviation_s > 0.03
    assert varying.latency_s + varying.deviation_s > regular.latency_s + regular.deviation_s


def test_a_small_answer_tells_nothing_of_the_rate():
    standing = Standing()
    standing.served(NOW, seconds=0.1, first_byte_s=0.1, size=4096)
    assert standing.rate is None
    assert standing.score_s(NOW) is not None


def test_without_an_answer_there_is_no_score():
    assert Standing().score_s(NOW) is None


def test_a_failure_weighs_on_the_score_and_is_forgotten_by_and_by():
    standing = serving(0.02, times=200)
    before = standing.score_s(NOW)
    standing.failed(NOW, DOWN)
    after = [standing.score_s(NOW + seconds) for seconds in (0, TROUBLE_HALVED_S, 10 * TROUBLE_HALVED_S)]
    assert after == sorted(after, reverse=True)
    assert after[0] > 2 * before
    assert after[2] == pytest.approx(before, rel=0.01)


def test_each_failure_in_a_row_demotes_for_twice_as_long_up_to_a_bound():
    standing, demotions = Standing(), []
    for _ in range(12):
        now = standing.demoted_until or NOW
        standing.failed(now, DOWN)
        demotions.append(standing.demoted_until - now)
    assert demotions[:3] == [FIRST_DEMOTION_S, 2 * FIRST_DEMOTION_S, 4 * FIRST_DEMOTION_S]
    assert demotions[-1] == LONGEST_DEMOTION_S


def test_many_that_were_asked_before_a_mirror_died_demote_it_once():
    standing = Standing()
    for _ in range(16):
        standing.failed(NOW, DOWN)
    assert standing.demoted_until == NOW + FIRST_DEMOTION_S
    standing.failed(NOW, LIE)
    assert standing.demoted_until == NOW + LIE_DEMOTION_S


def test_a_block_that_it_lacks_does_not_weigh_on_the_score():
    standing = serving(0.02)
    before = standing.score_s(NOW)
    standing.failed(NOW, NotServedError("lagging"))
    assert standing.score_s(NOW) == before


def test_a_good_block_ends_a_demotion():
    standing = Standing()
    standing.failed(NOW, DOWN)
    assert not standing.is_good()
    serving(0.1, standing=standing, times=1)
    assert standing.is_good()
    assert not standing.is_to_be_probed(NOW)


def test_a_lie_is_not_forgiven_by_a_good_block():
    standing = Standing()
    for number in range(3):
        now = NOW + 1000 * number
        standing.failed(now, LIE)
        assert standing.demoted_until - now == LIE_DEMOTION_S * 2**number
        serving(0.1, standing=standing, times=1, now=now + 1)
        assert not standing.is_good()
        serving(0.1, standing=standing, times=1, now=standing.demoted_until)
        assert standing.is_good()


@pytest.mark.parametrize(
    ("asked_s", "demotion_s"), [(0.0, FIRST_DEMOTION_S), (30.0, 30.0), (1.0, 5.0), (1e9, LONGEST_RETRY_AFTER_S)]
)
def test_a_server_that_says_when_to_come_back_is_left_in_peace_until_then_within_bounds(asked_s, demotion_s):
    standing = Standing()
    standing.failed(NOW, ServerRefusedError("busy", status=503, retry_after_s=asked_s))
    assert standing.demoted_until == NOW + demotion_s


def test_it_is_to_be_probed_when_the_demotion_is_over():
    standing = Standing()
    standing.failed(NOW, NotServedError("lagging"))
    assert not standing.is_to_be_probed(NOW + FIRST_DEMOTION_S - 0.1)
    assert standing.is_to_be_probed(NOW + FIRST_DEMOTION_S)


def test_what_was_called_off_tells_that_it_takes_at_least_so_long():
    standing = serving(0.02)
    before = standing.score_s(NOW)
    standing.outlasted(NOW, 0.01)
    assert standing.score_s(NOW) == before
    standing.outlasted(NOW, 0.5)
    assert standing.score_s(NOW) > 2 * before
    assert standing.is_good()


def test_an_answer_is_late_after_nearly_all_of_the_recent_ones():
    standing = Standing()
    for number in range(200):
        standing.served(NOW, seconds=0.9 if number % 25 == 0 else 0.2, first_byte_s=0.1, size=0)
    assert standing.hedge_after_s() == 0.2


def test_lateness_is_bounded_and_a_guess_while_little_is_known():
    assert Standing().hedge_after_s() == HEDGE_UNKNOWN_S
    assert serving(0.001, times=FEW - 1).hedge_after_s() == HEDGE_UNKNOWN_S
    assert serving(0.001, times=FEW).hedge_after_s() == HEDGE_MIN_S
    assert serving(5.0, times=FEW).hedge_after_s() == HEDGE_MAX_S


@pytest.mark.parametrize(
    ("latencies", "order"),
    [
        ((0.050, 0.045), [0, 1]),  # alike: as given
        ((0.050, 0.020), [1, 0]),
        ((0.020, 0.050), [0, 1]),
        ((0.004, 0.001), [0, 1]),  # a few milliseconds are not worth it
        ((0.200, 0.021, 0.020), [1, 2, 0]),
        ((None, None), [0, 1]),
        ((0.3, None, 0.1), [2, 0, 1]),  # unknown: after the known, until it was sampled
    ],
)
def test_the_order_is_by_score_and_as_given_among_those_alike(latencies, order):
    standings = [Standing() if latency is None else serving(latency, times=300) for latency in latencies]
    assert ranked(standings, NOW) == order


def test_the_demoted_come_last_the_one_to_be_probed_next_first():
    standings = [serving(0.01) for _ in range(4)]
    standings[0].failed(NOW, LIE)
    standings[2].failed(NOW, DOWN)
    assert ranked(standings, NOW) == [1, 3, 2, 0]
