"""Tables and plot: what a reader finds in them."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import report
from cells import Cell, Disk, Place, Results, Run

RUN = Run(5.0, 0.5, 4.0, 55_000_000, 15, 0, 0.25)


@pytest.fixture
def results():
    found = Results(disks={"debian12": Disk("Debian 12", "k", 400, 400 << 18, 50_000_000)})
    found.contenders = {
        "oscirc-profile": {"label": "oscirc, profile", "note": "cold"},
        "rclone": {"label": "rclone mount", "note": "`--vfs-cache-mode full`"},
    }
    for place, run in (
        (Place("debian12", 100, 20, "oscirc-profile"), RUN),
        (Place("debian12", 100, 20, "rclone"), replace(RUN, whole_s=48.0, stopped=True)),
        (Place("debian12", 20, 1, "oscirc-profile"), replace(RUN, whole_s=20.4)),
    ):
        found.cells[place] = Cell(place, "k", (run,))
    return found


def test_the_table_of_ratios_has_a_row_per_contender_and_a_column_per_link(results):
    lines = report.markdown(results).splitlines()
    assert "| Mbit/s, round trip | 20, 1 ms | 100, 20 ms |" in lines
    assert "| oscirc, profile | 1.02 | 1.25 |" in lines


def test_what_was_stopped_is_shown_as_more_and_what_was_not_measured_as_nothing(results):
    assert "| rclone mount |  | >12 |" in report.markdown(results).splitlines()


def test_details_have_seconds_bytes_and_requests(results):
    assert "| 100 Mbit/s, 20 ms | oscirc, profile | 5.00 | 1.00 | 55.0 | 1.10 | 15 | 0.25 |" in report.markdown(results)


def test_the_limit_is_named_for_each_rate(results):
    assert "20.00 s at 20 Mbit/s, 4.00 s at 100 Mbit/s" in report.markdown(results)


def test_cells_of_earlier_code_are_marked_and_the_mark_is_explained(results):
    assert "†" not in report.markdown(results)
    place = Place("debian12", 20, 1, "oscirc-profile")
    results.cells[place] = replace(results.cells[place], key="older")
    text = report.markdown(results)
    assert "| 1.02† |" in text
    assert "†: measured with earlier code" in text


def test_missed_bounds_stand_out(results):
    text = report.markdown(results)
    assert "replay / limit | 1 | 1.05 | pass |" in text
    assert "whole way / limit | 1.25 | 1.15 | **missed** |" in text
    assert "not measured" in text


def test_every_contender_has_its_note(results):
    assert "- rclone mount: `--vfs-cache-mode full`." in report.markdown(results).splitlines()


def test_the_plot_is_svg_with_readable_text_and_a_panel_per_rate(results, tmp_path):
    report.plot(results, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  # our own
    for words in ("oscirc, profile", "rclone mount", "Debian 12, 20 Mbit/s", "Debian 12, 100 Mbit/s"):
        assert words in text
    assert len(text) < 200_000


def test_the_same_results_give_the_same_plot(results, tmp_path):
    for name in ("one.svg", "two.svg"):
        report.plot(results, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_list_that_was_not_learnt_from_the_system_has_a_table_of_its_own(results):
    assert "not required" not in report.markdown(results)
    place = Place("debian12", 100, 20, "oscirc-unlearnt")
    results.cells[place] = Cell(place, "k", (replace(RUN, replay_s=6.0),))
    text = report.markdown(results)
    assert "| Debian 12, no profile, not learnt from, 100 Mbit/s 20 ms: replay / limit | 1.5 | 2 |" in text
