"""Which pages of a file the kernel holds: as runs, and as a real kernel says it."""

from page_cache import PAGE, held, runs, taken_back


def test_pages_become_runs_of_bytes():
    assert list(runs(bytes([0, 1, 1, 0, 1]), 8 * PAGE, 13 * PAGE)) == [
        (9 * PAGE, 11 * PAGE),
        (12 * PAGE, 13 * PAGE),
    ]


def test_the_last_page_is_held_to_where_it_was_asked_for():
    assert list(runs(bytes([1]), 0, 10)) == [(0, 10)]
    assert list(runs(b"", 0, 0)) == []


def test_only_the_lowest_bit_tells():
    assert list(runs(bytes([2, 3]), 0, 2 * PAGE)) == [(PAGE, 2 * PAGE)]


def test_a_page_just_written_is_held_and_holes_are_not(tmp_path):
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(64 * PAGE)
        file.seek(20 * PAGE)
        file.write(b"x" * PAGE)
        file.flush()
        assert held(file.fileno(), 0, 64 * PAGE) == [(20 * PAGE, 21 * PAGE)]
        assert held(file.fileno(), 20 * PAGE, 20 * PAGE + 5) == [(20 * PAGE, 20 * PAGE + 5)]
        assert held(file.fileno(), 30 * PAGE, 40 * PAGE) == []


def test_pages_of_files_that_were_reclaimed_are_counted():
    assert taken_back("pgsteal_anon 7\npgsteal_file 12\npgscan_file 40\n") == 12
    assert taken_back() >= 0
