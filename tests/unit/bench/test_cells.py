"""Results that outlive their runs: what is kept, what is measured again, what is written."""

from dataclasses import replace

from cells import Cell, Disk, Place, Results, Run, Took, load, parse

RUN = Run(5.0, 0.5, 4.0, 60_000_000, 15, 0, 0.1)
PLACE = Place("debian12", 100, 20, "oscirc-profile")


def results(key: str = "new") -> Results:
    found = Results(
        "2026-01-01", {"processor": "some"}, {"debian12": Disk("Debian 12", key, 400, 400 << 18, 50_000_000)}
    )
    found.contenders = {"oscirc-profile": {"label": "oscirc, profile", "note": "cold"}}
    return found


def put(found: Results, place: Place = PLACE, key: str = "new", runs: tuple[Run, ...] = (RUN,)) -> Cell:
    found.cells[place] = Cell(place, key, runs)
    return found.cells[place]


def test_what_was_written_is_read_again(tmp_path):
    found = results()
    put(found)
    put(found, replace(PLACE, contender="rclone"), runs=(replace(RUN, stopped=True), RUN))
    found.save(tmp_path / "deep" / "boot.json")
    assert load(tmp_path / "deep" / "boot.json") == found


def test_saving_leaves_no_draft_behind(tmp_path):
    results().save(tmp_path / "boot.json")
    assert [each.name for each in tmp_path.iterdir()] == ["boot.json"]


def test_results_without_a_cell_are_read_again():
    assert parse(results().serialise()) == results()


def test_no_file_and_another_form_are_empty_results(tmp_path):
    assert load(tmp_path / "none.json") == Results()
    assert parse('{"form": 0, "cells": [{"disk": 1}]}') == Results()


def test_each_cell_has_a_line_of_its_own():
    found = results()
    put(found)
    put(found, replace(PLACE, rate_mbit=20))
    assert sum('"contender"' in line for line in found.serialise().splitlines()) == 2


def test_an_interrupted_run_goes_on_with_what_is_missing():
    found = results()
    put(found)
    other = replace(PLACE, round_trip_ms=100)
    assert found.missing([(PLACE, 1), (other, 1)]) == [(other, 1)]


def test_a_cell_of_other_code_is_measured_again():
    found = results()
    cell = put(found, key="old")
    assert found.is_old(cell)
    assert found.missing([(PLACE, 1)]) == [(PLACE, 1)]


def test_a_cell_with_fewer_runs_than_wanted_is_measured_again():
    found = results()
    put(found)
    assert found.missing([(PLACE, 3)]) == [(PLACE, 3)]
    put(found, runs=(RUN,) * 3)
    assert found.missing([(PLACE, 1)]) == []


def test_figures_are_medians_and_wrong_reads_are_summed():
    cell = Cell(PLACE, "new", tuple(replace(RUN, whole_s=s, replay_s=s / 2, wrong_reads=1) for s in (9.0, 5.0, 6.0)))
    assert (cell.whole_s, cell.replay_s, cell.wrong_reads) == (6.0, 3.0, 3)


def test_a_cell_is_stopped_when_its_middle_run_was():
    stopped = replace(RUN, stopped=True)
    assert Cell(PLACE, "new", (stopped, stopped, RUN)).stopped
    assert not Cell(PLACE, "new", (stopped, RUN, RUN)).stopped


def test_the_ratio_is_to_what_the_link_needs_for_the_frames():
    found = results()
    cell = put(found)
    assert found.disks["debian12"].limit_s(100) == 4.0
    assert found.ratio(cell) == 1.25
    assert found.ratio(cell, replay=True) == 1.0


def test_how_long_a_run_took_is_kept_and_can_be_read_off():
    found = results()
    found.took = Took(300.5, 150.0, 8)
    assert parse(found.serialise()).took == found.took
    assert found.took.line() == "8 cells in 150.0 s; with the preparation of disks 450.5 s"


def test_results_from_before_the_code_was_kept_are_read():
    text = results().serialise().replace(',\n   "code": ""', "")
    assert '"code"' not in text
    assert parse(text) == results()
