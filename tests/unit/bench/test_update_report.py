"""Tables and plot of the comparison of updates, from values alone."""

from dataclasses import replace

import pytest
import update_report
from update_results import Growth

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


def test_a_boot_that_older_code_measured_is_marked():
    found = results()
    pair = found.pairs["upgrade"]
    pair.booted["oscirc-packs"] = replace(pair.booted["oscirc-packs"], key="older")
    text = update_report.markdown(found)
    assert "label of oscirc-packs† | 500" in text
    assert "†: measured with earlier code" in text


def test_what_the_store_grew_by_is_told_where_it_is_known():
    found = results()
    assert "What the store grew by" not in update_report.markdown(found)
    found.pairs["upgrade"].growth = Growth("k", 19_000_000, 2_500, 9_000_000, 7_000)
    told = "kB: 28,009.5 in all: changed blocks 19,000.0, pack 9,000.0, table 2.5, all else 7.0."
    assert f"What the store grew by, {told}" in update_report.markdown(found)
    found.pairs["upgrade"].growth = replace(found.pairs["upgrade"].growth, key="older")
    assert f"What the store grew by†, {told}" in update_report.markdown(found)


def test_the_growth_of_pairs_has_a_panel_where_it_is_known(tmp_path):
    pytest.importorskip("matplotlib")
    found = results()
    update_report.plot(found, tmp_path / "without.svg")
    found.pairs["upgrade"].growth = Growth("k", 19_000_000, 2_500, 9_000_000, 7_000)
    update_report.plot(found, tmp_path / "with.svg")
    assert "store growth of each pair" not in (tmp_path / "without.svg").read_text()
    assert "store growth of each pair" in (tmp_path / "with.svg").read_text()


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
