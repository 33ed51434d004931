"""What a recorded boot shows of itself: a trace that grows, and a console that says much."""

import io
import sys
import threading

import pytest

from oscirc import recording_progress
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.trace import END_LINE, TraceHead

BLOCK = 65_536


def test_a_growing_trace_is_counted_from_where_it_was_left_each_block_once(tmp_path):
    file = tmp_path / "trace"
    touched = recording_progress.Touched(file, BLOCK)
    assert touched.bytes_so_far() == 0  # not there yet
    file.write_text(f"{TraceHead(100 * BLOCK, digest_of(b'disk'))}0 512 1\n{BLOCK - 1} 2 2\n")
    assert touched.bytes_so_far() == 2 * BLOCK
    with file.open("a") as more:
        more.write(f"0 512 3\n{5 * BLOCK} 512")
        more.flush()
        assert touched.bytes_so_far() == 2 * BLOCK  # what is being written is no line yet
        more.write(f" 4\n{END_LINE}")
    assert touched.bytes_so_far() == 3 * BLOCK
    assert touched.bytes_so_far() == 3 * BLOCK


def test_a_trace_that_makes_no_sense_hinders_nothing(tmp_path):
    (tmp_path / "trace").write_bytes(b"1 2 x\n\xff\n7 7\n")
    assert recording_progress.Touched(tmp_path / "trace", BLOCK).bytes_so_far() == 0


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"", ""),
        (b"\r\n\r\n", ""),
        (b"one\r\ntwo\r\n\r\n", "two"),
        (b"[\x1b[0;32m  OK  \x1b[0m] Reached \x1b]0;title\x07target\r\n\x1b[K", "[  OK  ] Reached target"),
        (b"half \xc3", "half \ufffd"),
        (b"bell\x07\x00\x1b", "bell"),
        (b"x" * 200, "x" * 40),
    ],
)
def test_the_last_line_of_a_console_is_plain_text(raw, line):
    assert recording_progress.last_line(raw, 40) == line


def test_a_bar_that_is_drawn_starts_no_thread_since_a_driver_is_forked_beside_it(monkeypatch):
    drawn = io.StringIO()
    monkeypatch.setattr(drawn, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", drawn)
    before = set(threading.enumerate())  # of tests before this one some may be about to end
    with recording_progress.bar_for("run 1") as bar:
        bar.update(3 << 20)
        bar.set_postfix_str("Loading Linux", refresh=True)
        assert not set(threading.enumerate()) - before
    assert "run 1: 3.00MB [00:00" in drawn.getvalue()
    assert "Loading Linux" in drawn.getvalue()


def test_nothing_is_drawn_where_standard_error_is_no_terminal(capsys):
    with recording_progress.bar_for("run 1") as bar:
        bar.update(10)
        bar.set_postfix_str("Loading Linux", refresh=True)
    assert capsys.readouterr().err == ""
