"""Retention: what is kept, and why; that silence keeps everything, and a channel always something that boots."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion, Yank
from oscirc_blockstore.retention import Policy, choose

NOW = datetime(2026, 6, 30, tzinfo=UTC)
MILD, SECURITY = Yank("bad", "2026-06-01T00:00:00Z"), Yank("hole", "2026-06-01T00:00:00Z", security=True)


def version(number, yanked=None):
    return ImageVersion(str(number), digest_of(bytes([number])), f"2026-06-{number:02}T00:00:00Z", "", yanked)


def index_of(count, channels, **yanked):
    return ImageIndex(
        "alice", "debian", tuple(version(n, yanked.get(f"v{n}")) for n in range(1, count + 1)), dict(channels)
    )


def kept(index, policy):
    return [choice.version.label for choice in choose(index, policy, NOW) if choice.is_kept]


def test_silence_keeps_everything():
    assert kept(index_of(5, {}), Policy()) == ["1", "2", "3", "4", "5"]


def test_the_last_ones_are_kept_and_what_channels_point_at():
    assert kept(index_of(9, {"stable": "3", "old": "1"}), Policy(keep_last=2)) == ["1", "3", "8", "9"]


def test_withdrawn_versions_do_not_count_among_the_last():
    assert kept(index_of(5, {"stable": "1"}, v4=MILD, v5=SECURITY), Policy(keep_last=2)) == ["1", "2", "3"]


def test_what_is_young_is_kept():
    assert kept(index_of(29, {"stable": "1"}), Policy(keep_days=3)) == ["1", "28", "29"]


def test_either_reason_keeps():
    assert kept(index_of(29, {}), Policy(keep_last=1, keep_days=3)) == ["28", "29"]


def test_nothing_but_channels_is_kept_by_a_policy_of_zero():
    assert kept(index_of(5, {"stable": "2"}), Policy(keep_last=0)) == ["2"]


@pytest.mark.parametrize(
    ("yanked", "expected"),
    [
        ({"v3": SECURITY}, ["2", "3"]),
        ({"v3": SECURITY, "v2": SECURITY}, ["1", "3"]),
        ({"v3": SECURITY, "v2": MILD}, ["1", "3"]),
        ({"v3": SECURITY, "v2": SECURITY, "v1": SECURITY}, ["3", "4"]),
        ({"v3": SECURITY, "v1": MILD, "v2": MILD, "v4": SECURITY, "v5": SECURITY}, ["2", "3"]),
        ({"v3": MILD}, ["3"]),
    ],
)
def test_a_channel_keeps_something_that_boots(yanked, expected):
    assert kept(index_of(5, {"stable": "3"}, **yanked), Policy(keep_last=0)) == expected


@pytest.mark.parametrize("numbers", [(-1, None), (None, -1), (10_001, None), (None, 36_501)])
def test_a_policy_out_of_bounds_is_refused(numbers):
    with pytest.raises(UsageError):
        Policy(*numbers)


@given(
    st.integers(1, 12),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 12)),
    st.dictionaries(st.integers(1, 12), st.sampled_from([MILD, SECURITY])),
    st.integers(0, 3),
)
def test_whatever_is_signed_each_channel_has_a_version_that_boots_if_there_is_one(count, channels, yanked, last):
    index = index_of(count, {name: str(min(at, count)) for name, at in channels.items()})
    index = replace(index, versions=tuple(replace(v, yanked=yanked.get(int(v.label))) for v in index.versions))
    labels = kept(index, Policy(keep_last=last))
    left = index.without_versions(
        [v.label for v in index.versions if v.label not in labels], date="2026-07-01T00:00:00Z"
    )
    boots = [v for v in index.versions if v.yanked is None or not v.yanked.security]
    assert dict(left.channels) == dict(index.channels)
    if channels and boots:
        assert any(v in boots for v in left.versions)
