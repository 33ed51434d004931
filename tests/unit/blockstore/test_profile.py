"""Profiles come back, are bounded, and merge without one odd run spoiling the order."""

import json

import pytest

from oscirc_blockstore import canonical, profile
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.profile import Profile

DISK = digest_of(b"disk")


def recorded(*positions, runs=1):
    return Profile(DISK, "boot", runs, positions)


def test_a_profile_comes_back():
    made = recorded(5, 1, 900, 2)
    assert profile.parse(made.serialise()) == made


@pytest.mark.parametrize("positions", [[1, 1], [-1], [True], ["1"], [1 << 60], {}])
def test_odd_positions_are_refused(positions):
    document = {**json.loads(recorded(1).serialise()), "positions": positions}
    with pytest.raises(DocumentRefusedError):
        profile.parse(canonical.serialise(document))


def test_merging_keeps_the_common_order_and_puts_the_odd_ones_last():
    runs = [recorded(1, 2, 3, 4), recorded(1, 3, 2, 4), recorded(1, 2, 3, 4, 77)]
    merged = profile.merge(runs)
    assert merged.positions == (1, 2, 3, 4, 77)
    assert merged.runs == 3


def test_merging_does_not_depend_on_the_order_of_runs():
    runs = [recorded(9, 2, 3), recorded(2, 9, 3), recorded(3, 2, 9)]
    assert profile.merge(runs) == profile.merge(runs[::-1])


def test_profiles_of_other_disks_do_not_merge():
    with pytest.raises(DocumentRefusedError):
        profile.merge([recorded(1), Profile(digest_of(b"other"), "boot", 1, (1,))])
    with pytest.raises(DocumentRefusedError):
        profile.merge([])
