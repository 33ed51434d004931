"""Traces come back line by line; one that somebody else wrote costs no more than a profile may hold."""

import pytest

from oscirc_blockstore import trace
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, LocalError
from oscirc_blockstore.trace import TracedRead, TraceHead

HEAD = TraceHead(1 << 40, digest_of(b"manifest"))


def lines(*reads):
    return [str(HEAD), *map(str, reads)]


def test_a_trace_comes_back():
    reads = [TracedRead(0, 4096, 0), TracedRead(1 << 30, 131072, 12)]
    head, parsed = trace.parse(lines(*reads))
    assert (head, list(parsed)) == (HEAD, reads)


def test_a_last_line_that_was_cut_off_is_passed_over():
    _, parsed = trace.parse([*lines(TracedRead(0, 512, 0)), "4096 51"])
    assert list(parsed) == [TracedRead(0, 512, 0)]


@pytest.mark.parametrize(
    "line",
    [
        "1 2\n",
        "1 2 3 4\n",
        "-1 2 3\n",
        "1 x 3\n",
        f"{1 << 40} 1 0\n",
        f"0 {trace.MAX_READ_BYTES + 1} 0\n",
        f"{'1' * 20} 1 0\n",
        "\uff11 2 3\n",
    ],
)
def test_a_line_that_is_no_read_is_refused_with_its_number(line):
    _, parsed = trace.parse([*lines(TracedRead(0, 512, 0)), line])
    with pytest.raises(DocumentRefusedError, match="line 3"):
        list(parsed)


@pytest.mark.parametrize(
    "head", ["", "oscirc-trace-2 1 " + "a" * 64, "oscirc-trace-1 x " + "a" * 64, "oscirc-trace-1 1 b"]
)
def test_another_file_is_refused(head):
    with pytest.raises(DocumentRefusedError):
        trace.parse([head])


def test_blocks_are_named_once_in_the_order_of_their_first_touch():
    reads = [TracedRead(130_000, 10_000, 0), TracedRead(0, 1, 1), TracedRead(65_535, 2, 2), TracedRead(70_000, 0, 3)]
    assert trace.first_touch_order(reads, 65_536) == [1, 2, 0]


def test_a_trace_that_touches_more_than_a_profile_holds_is_refused(monkeypatch):
    monkeypatch.setattr(trace, "MAX_POSITIONS", 2)
    with pytest.raises(DocumentRefusedError, match="more than 2"):
        trace.first_touch_order([TracedRead(0, 3 * 65_536, 0)], 65_536)


def test_a_trace_is_whole_when_its_recording_came_to_its_end(tmp_path):
    file = tmp_path / "trace"
    head = TraceHead(1 << 20, digest_of(b"m"))
    for text, whole in (
        (f"{head}0 4096 0\nend\n", True),
        (f"{head}0 4096 0\n", False),
        (f"{head}0 40", False),
        ("", False),
    ):
        file.write_text(text)
        assert trace.ends(file) is whole
    with pytest.raises(LocalError):
        trace.ends(tmp_path / "none")


def test_the_line_at_the_end_is_not_a_read():
    head = TraceHead(1 << 20, digest_of(b"m"))
    _, reads = trace.parse([str(head), "0 4096 0\n", "end\n"])
    assert list(reads) == [trace.TracedRead(0, 4096, 0)]
