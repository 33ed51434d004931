"""What a version's row says of it in each facet, and in which order choices are offered."""

import pytest

from oscirc_server.services.facets import FACETS, as_it_is, memories, supports

TODAY = "2027-01-15"


def test_an_empty_column_is_no_value():
    assert [as_it_is(fact, TODAY) for fact in ("", None, "debian", 0)] == [(), (), ("debian",), ("0",)]


@pytest.mark.parametrize(
    ("mib", "values"),
    [
        (1, ("512 MiB", "1 GiB", "2 GiB", "4 GiB", "8 GiB", "16 GiB")),
        (512, ("512 MiB", "1 GiB", "2 GiB", "4 GiB", "8 GiB", "16 GiB")),
        (513, ("1 GiB", "2 GiB", "4 GiB", "8 GiB", "16 GiB")),
        (16_384, ("16 GiB",)),
        (16_385, ("more than 16 GiB",)),
        (None, ()),
    ],
)
def test_what_needs_little_runs_with_much(mib, values):
    assert memories(mib, TODAY) == values


@pytest.mark.parametrize(
    ("day", "values"),
    [
        ("", ()),
        (None, ()),
        ("2027-01-14", ("ended",)),
        ("2027-01-15", ("supported",)),
        ("2028-01-14", ("supported",)),
        ("2028-01-15", ("supported", "for a year or more")),
        ("9999-12-31", ("supported", "for a year or more")),
    ],
)
def test_support_lasts_to_the_end_of_its_last_day(day, values):
    assert supports(day, TODAY) == values


def test_on_the_29th_of_february_a_year_is_a_year():
    assert supports("2029-02-28", "2028-02-29") == ("supported",)
    assert supports("2029-03-01", "2028-02-29") == ("supported", "for a year or more")


def test_choices_that_have_an_order_of_their_own_come_in_it_and_strange_ones_last():
    rank = {facet.name: facet.rank for facet in FACETS}
    sizes = ["strange", "more than 16 GiB", "512 MiB", "8 GiB", "1 GiB"]
    assert sorted(sizes, key=rank["memory"]) == ["512 MiB", "1 GiB", "8 GiB", "more than 16 GiB", "strange"]
    assert max(["ended", "for a year or more", "supported"], key=rank["support"]) == "ended"
    assert rank["family"] is None
