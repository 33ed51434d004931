"""The verdict on second reads of what the page cache holds; nothing is mounted here."""

from page_cache import PAGE
from warm import CHUNK, SecondRead, chunks, verdict

GIB = 1 << 30
ALL_HELD = SecondRead(5000.0, GIB, 0, 0, 0)


def passed(*, rate: float = 600.0, second: SecondRead = ALL_HELD) -> bool:
    return verdict([rate] * 5, [ALL_HELD] * 4 + [second], [1200.0] * 5)[1]


def test_a_fast_first_read_and_second_reads_without_a_call_pass():
    assert passed()


def test_a_slow_first_read_fails():
    assert not passed(rate=499.0)


def test_one_driver_call_in_one_second_read_fails():
    assert not passed(second=SecondRead(5000.0, GIB, 0, 1, 0))


def test_what_the_kernel_took_back_is_left_out_and_told():
    left_out = SecondRead(5000.0, GIB - 64 * PAGE, 64 * PAGE, 0, 64)
    assert passed(second=left_out)
    assert verdict([600.0], [left_out], [1200.0])[0]["pages_left_out_of_second_reads"] == [64]


def test_pages_that_are_gone_though_the_kernel_took_none_back_fail():
    assert not passed(second=SecondRead(5000.0, GIB - 64 * PAGE, 64 * PAGE, 0, 63))


def test_a_second_read_that_found_little_shows_nothing():
    assert not passed(second=SecondRead(5000.0, GIB // 2, GIB // 2, 0, GIB // PAGE))


def test_pieces_begin_at_pages_and_cover_the_extents():
    pieces = list(chunks([(PAGE + 1, 2 * CHUNK), (3 * CHUNK, 3 * CHUNK + 10)]))
    assert pieces == [(PAGE, PAGE + CHUNK), (PAGE + CHUNK, 2 * CHUNK), (3 * CHUNK, 3 * CHUNK + 10)]
