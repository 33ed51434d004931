"""Merging what strangers sent: what a majority touched, in its order, however loud the others are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import consensus
from oscirc_blockstore.consensus import agreed, quorum
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.profile import Profile

DISK = digest_of(b"disk")


def run(*positions, name="boot", manifest=DISK, runs=1):
    return Profile(manifest, name, runs, positions)


def test_what_fewer_than_the_quorum_touched_is_left_out():
    runs = [run(1, 2, 3), run(1, 2, 4), run(1, 5, 6)]
    assert agreed(runs, 2).positions == (1, 2)
    assert agreed(runs, 3).positions == (1,)
    assert agreed([run(1), run(2), run(3)], 2).positions == ()
    assert agreed(runs, 2).runs == 3


def test_the_order_is_the_medians_whatever_one_run_says():
    honest = [run(10, 20, 30, 40)] * 4
    assert agreed([*honest, run(40, 30, 20, 10)], 3).positions == (10, 20, 30, 40)
    assert agreed([*honest, run(*range(1000, 2000), 30, 10)], 3).positions == (10, 20, 30, 40)


def test_a_run_counts_once_whatever_weight_it_claims():
    runs = [run(1, 2), run(1, 2), run(9, 8, runs=1_000_000)]
    assert agreed(runs, 2).positions == (1, 2)


def test_the_result_is_no_longer_than_the_median_run():
    runs = [run(1, 2), run(1, 2), run(1, 2), run(*range(100)), run(*range(100)), run(*range(100))]
    assert agreed(runs, 3).positions == (1, 2)  # six of six before three of six


def test_nothing_and_runs_of_different_disks_are_refused():
    for runs in ([], [run(1), run(1, name="other")], [run(1), run(1, manifest=digest_of(b"x"))]):
        with pytest.raises(DocumentRefusedError):
            agreed(runs, 1)
    with pytest.raises(DocumentRefusedError):
        agreed([run(1)], 0)


_RUNS = st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=20).map(lambda positions: run(*positions))


@given(st.lists(_RUNS, min_size=1, max_size=9), st.lists(_RUNS, max_size=4))
def test_liars_below_the_quorum_bring_in_nothing_that_nobody_honest_touched(honest, lies):
    every = [*honest, *lies]
    least = quorum(len(every))
    if len(lies) >= least:
        return
    merged = agreed(every, least)
    assert set(merged.positions) <= {position for one in honest for position in one.positions}
    assert len(set(merged.positions)) == len(merged.positions)
    assert consensus.agreed(every[::-1], least) == merged
