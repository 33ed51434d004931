import time

import click
from hypothesis import given
from hypothesis import strategies as st

from oscirc import disk_map
from oscirc.disk_map import LOOKS, Cells, Runs
from oscirc_fusedriver.status import MapPart
from oscirc_remote.block_map import BlockState


def part(start, *runs, last=False, block_count=100):
    stop = start + sum(count for _, count in runs)
    return MapPart(start, tuple(runs), None if last else stop, block_count, 65536)


def add_all(into, text):
    for at, state in enumerate(text):
        into.add(at, state, 1)
    return into


def test_every_state_that_a_driver_tells_has_a_look_of_its_own():
    assert set(LOOKS) == {state.value for state in BlockState}
    assert len({look.letter for look in LOOKS.values()}) == len({look.name for look in LOOKS.values()}) == len(LOOKS)


@given(
    st.lists(st.tuples(st.sampled_from("zacdupn"), st.integers(1, 300)), min_size=1, max_size=30), st.integers(1, 500)
)
def test_every_block_is_in_one_cell_and_in_the_totals(runs, most):
    blocks = sum(count for _, count in runs)
    cells, at = Cells.of(blocks, most), 0
    expected = [""] * blocks
    for state, count in runs:
        cells.add(at, state, count)
        expected[at : at + count] = state * count
        at += count
    assert len(cells.cells) == min(most, blocks)
    assert sum(cells.totals.values()) == blocks
    sizes = [sum(cell.values()) for cell in cells.cells]
    assert max(sizes) - min(sizes) <= 1
    at = 0
    for cell, size in zip(cells.cells, sizes, strict=True):
        assert cell == {state: expected[at : at + size].count(state) for state in set(expected[at : at + size])}
        at += size


def test_a_cell_shows_what_most_of_its_data_is_and_zeros_where_it_has_none():
    cells = add_all(Cells.of(12, 3), "zzzd" + "zzzz" + "addz")
    assert "".join(look.letter for look in cells.letters()) == "D.D"


def test_a_state_of_a_newer_driver_is_drawn_as_unknown():
    cells = add_all(Cells.of(2, 2), "xd")
    assert "".join(look.letter for look in cells.letters()) == "?D"


def test_the_grid_has_the_width_asked_for_and_a_legend_with_counts():
    cells = add_all(Cells.of(10, 160), "zzaacdupnn")
    lines = disk_map.draw(cells, 65536, width=4, colour=False)
    assert lines[:3] == ["..--", "cDPp", "??"]
    assert "64.0 KiB" in lines[4]
    legend = "\n".join(lines[5:])
    assert all(look.words in legend for look in LOOKS.values())
    assert "2 blocks" in legend


def test_only_what_occurs_stands_in_the_legend():
    lines = disk_map.draw(add_all(Cells.of(2, 2), "aa"), 65536, width=80, colour=False)
    assert len([line for line in lines if "blocks" in line]) == 1


def test_colour_changes_nothing_but_the_colour():
    cells = add_all(Cells.of(7, 7), "zacdupn")
    plain = disk_map.draw(cells, 65536, width=80, colour=False)
    coloured = disk_map.draw(cells, 65536, width=80, colour=True)
    assert not any("\x1b" in line for line in plain)
    assert [click.unstyle(line) for line in coloured] == plain
    assert "\x1b" in coloured[0]


def test_parts_are_gathered_to_the_end():
    runs = Runs()
    parts = {40: part(40, ("a", 10)), 50: part(50, ("z", 50), last=True)}
    assert disk_map.gather(parts.__getitem__, part(0, ("z", 20), ("a", 20)), runs, limit_s=10)
    assert runs.runs == [("zero", 20), ("absent", 30), ("zero", 50)]
    assert disk_map.counts(runs.totals)["absent"] == 30


def test_a_driver_that_never_ends_is_asked_for_so_long_and_the_rest_is_unknown():
    clock = iter(range(100))
    asked = []

    def ask(start):
        asked.append(start)
        return part(start, ("a", 1))

    cells = Cells.of(100, 100)
    assert not disk_map.gather(ask, part(0, ("a", 1)), cells, limit_s=5, now=lambda: next(clock))
    assert len(asked) == 5
    assert (cells.totals["a"], cells.totals["n"]) == (6, 94)


def test_runs_are_bounded(monkeypatch):
    monkeypatch.setattr(disk_map, "MAX_RUNS", 3)
    runs = Runs()

    def ask(start):
        return part(start, ("a", 1), ("z", 1))

    assert not disk_map.gather(ask, ask(0), runs, limit_s=5)
    assert runs.runs[-1] == ("unknown", 96)
    assert len(runs.runs) == 5


def test_a_terabyte_of_one_run_costs_a_step_for_each_cell():
    cells = Cells.of(1 << 22, 80 * disk_map.ROWS)
    started = time.process_time()
    cells.add(0, "z", 1 << 22)
    assert time.process_time() - started < 1
    assert len(cells.cells) == 1280
