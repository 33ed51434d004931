"""What ten nights bring: the order of fixes, and a log that is the same each time."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "guests"))

import nights
from guestdisks import systems


def test_fixes_come_in_the_order_of_their_dates_and_one_source_stays_together():
    dated = [(30, "libz=2", "z"), (10, "a=1", "a"), (20, "z=2", "z"), (20, "b=1", "b")]
    assert nights.spread(dated, 3) == [["a=1"], ["b=1"], ["libz=2", "z=2"]]


def test_more_nights_than_fixes_leave_some_without_any():
    plan = nights.spread([(1, "a=1", "a"), (2, "b=1", "b")], 4)
    assert plan == [["a=1"], [], ["b=1"], []]


def test_more_fixes_than_nights_are_spread_evenly_and_none_is_lost():
    dated = [(time, f"p{time:02}=1", f"s{time}") for time in range(23)]
    plan = nights.spread(dated, 10)
    assert [each for night in plan for each in night] == [f"p{time:02}=1" for time in range(23)]
    assert {len(night) for night in plan} == {2, 3}


def test_a_nights_log_is_the_same_each_time_and_another_each_night():
    assert nights.log_lines(4) == nights.log_lines(4)
    assert nights.log_lines(4) != nights.log_lines(5)
    assert 300_000 < len(nights.log_lines(4)) < 500_000


def test_differences_name_packages_that_came_and_went():
    assert systems.differences({"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "1", "d": "1"}) == (
        "a 1 2\nc 1 -\nd - 1\n"
    )


def test_more_nights_than_there_are_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        nights.main([str(tmp_path), "--nights", "11"])
    assert "10 nights" in capsys.readouterr().err
