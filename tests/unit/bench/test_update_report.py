"""Tables and plot of the comparison of updates, from values alone."""

import pytest
import update_report

from .update_figures import results


def test_every_contender_has_its_row_with_bytes_and_share():
    text = update_report.markdown(results())
    assert "| label of oscirc-packs | 9.00 | 9.00 | 0.45 | 12 |" in text
    assert "| label of casync | 20.00 | 20.00 | 1.00 |" in text


def test_the_packages_of_the_pair_are_named():
    assert "Packages: perl, apt." in update_report.markdown(results())


def test_bounds_nights_and_boots_are_there():
    text = update_report.markdown(results(oscirc_packs=19_000_000))
    assert "**missed**" in text
    assert "| 01 | 900.0 | 900.0 | 1,000.0 | 0.0 | 0.0 | 4.0 | 500.0 | perl |" in text
    assert "| 500 | 40 | 4.00 | 1.00 | 30 | 1.05 | 1.05 | 0.02 | 0.03 | 44 |" in text


def test_what_older_code_measured_is_marked():
    found = results()
    found.pairs["upgrade"].key = "newer"
    assert "label of casync†" in update_report.markdown(found)


def test_a_part_that_was_not_measured_is_left_out():
    found = results()
    found.nights, found.pairs["upgrade"].booted = [], {}
    text = update_report.markdown(found)
    assert "nights" not in text.partition("must show")[0].partition("oscirc")[2]
    assert "was only *booted*" not in text


def test_the_same_results_give_the_same_plot(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        update_report.plot(results(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "label of zsync" in (tmp_path / "a.svg").read_text()
