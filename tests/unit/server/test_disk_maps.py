"""The map of what changed: bounded whatever the disk, in order, honest about what was not looked at."""

import itertools

import pytest

from oscirc_server.services.disk_maps import (
    COLUMNS,
    KINDS,
    MOST_ROWS,
    MOST_RUNS,
    ChangedRun,
    MapMaker,
    TakesTooLongError,
)
from oscirc_server.web import disk_drawings

BLOCK = 65536


def made(count, told, **options):
    maker = MapMaker(BLOCK, count, limit_s=options.get("limit_s", 10), now=options.get("now", lambda: 0))
    at = 0
    for change, length in told:
        maker.add(at, change, length)
        at += length
    return maker.finish()


def test_a_small_disk_has_a_cell_for_each_block_and_runs_join_what_differs():
    found = made(8, [("s", 1), ("c", 2), ("n", 1), ("z", 2), ("r", 1), ("s", 1)])
    assert [KINDS[cell.index(1)] for cell in found.cells] == [
        *("unchanged", "changed", "changed", "new", "zero", "zero", "removed", "unchanged")
    ]
    assert found.runs == (ChangedRun(1, 3, (2, 1, 0)), ChangedRun(6, 1, (0, 0, 1)))
    assert (found.seen, found.run_count) == (8, 2)


@pytest.mark.parametrize("count", [1, 63, 1023, 1025, 5000, (2 << 40) // BLOCK])
def test_every_position_is_counted_once_whatever_the_size(count):
    found = made(count, [("c", count // 3), ("s", count - count // 3)])
    assert sum(map(sum, found.cells)) == count
    assert len(found.cells) <= COLUMNS * MOST_ROWS
    assert sum(cell[0] for cell in found.cells) == count // 3
    starts = [found.cell_start(at) for at in range(len(found.cells) + 1)]
    assert [b - a for a, b in itertools.pairwise(starts)] == [sum(cell) for cell in found.cells]


def test_of_many_runs_the_longest_are_kept_in_the_order_of_the_disk():
    told = [piece for length in [3, 9, *[1] * 500, 7] for piece in (("c", length), ("s", 1))]
    found = made(sum(length for _, length in told), told)
    assert (len(found.runs), found.run_count) == (MOST_RUNS, 503)
    assert [run.count for run in found.runs if run.count > 1] == [3, 9, 7]
    assert [run.start for run in found.runs] == sorted(run.start for run in found.runs)


def test_after_its_time_no_more_is_looked_at_and_the_map_says_so():
    ticks = iter([0.0, *[100.0] * 9])
    maker = MapMaker(BLOCK, 1 << 20, limit_s=1, now=lambda: next(ticks))
    with pytest.raises(TakesTooLongError):
        for at in range(1 << 20):
            maker.add(at, "cs"[at % 2], 1)
    found = maker.finish()
    assert 0 < found.seen < 1 << 13
    drawn = disk_drawings.picture(found)
    assert drawn.unseen == ((1 << 20) - found.seen) * BLOCK
    assert drawn.rows[-1].title.endswith("not looked at")


def test_a_row_says_its_shares_in_words_and_what_is_there_at_all_can_be_seen():
    found = made(1 << 20, [("c", 1), ("s", (1 << 20) - 1)])
    drawn = disk_drawings.picture(found)
    assert drawn.rows[0].title == "0 to 4096 MiB: less than 1 % changed, 100 % unchanged"
    assert dict(drawn.rows[0].paths)["changed"] == "M1 10h10v1h-10z"
    assert {kind for row in drawn.rows[1:] for kind, _ in row.paths} == {"unchanged"}
    assert sum(len(path) for row in drawn.rows for _, path in row.paths) < 40_000


def test_a_run_of_several_kinds_says_their_shares():
    found = made(4, [("c", 3), ("r", 1)])
    (line,) = disk_drawings.run_lines(found)
    assert (line.start, line.size, line.words) == (0, 4 * BLOCK, "75 % changed, 25 % became zeros")
