"""Traces become a profile; what is no whole trace of that version is refused."""

from pathlib import Path

import pytest

from oscirc import profile_making
from oscirc_blockstore import trace
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, UsageError
from oscirc_blockstore.table import Geometry

BLOCK = 64 << 10
DISK = Geometry(16 * BLOCK, BLOCK)
VERSION = digest_of(b"version")


@pytest.fixture
def written(tmp_path):
    def write(*positions, end=trace.END_LINE, head=trace.TraceHead(DISK.disk_size, VERSION)):  # noqa: B008
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.trace"
        file.write_text(f"{head}{''.join(str(trace.TracedRead(at * BLOCK, 4096, 0)) for at in positions)}{end}")
        return file

    return write


def make(*files):
    return profile_making.make(files, "session", VERSION, DISK)


def test_a_trace_is_a_profile_in_order_of_first_touch(written):
    made = make(written(7, 2, 7, 3))
    assert (made.manifest, made.name, made.runs, made.positions) == (VERSION, "session", 1, (7, 2, 3))


def test_of_several_what_most_touched_comes_first(written):
    made = make(written(9, 1, 2), written(1, 2), written(1, 2))
    assert (made.runs, made.positions) == (3, (1, 2, 9))


def test_a_trace_of_another_version_is_refused(written):
    other = written(1, head=trace.TraceHead(DISK.disk_size, digest_of(b"another")))
    with pytest.raises(UsageError, match="another version"):
        make(written(1), other)


def test_a_trace_that_is_not_whole_is_refused(written):
    with pytest.raises(LocalError, match="not whole"):
        make(written(1, end=""))


def test_what_is_no_trace_is_refused(written, tmp_path):
    with pytest.raises(UsageError, match="no read"):
        make(written())
    with pytest.raises(UsageError, match="not a read trace"):
        make(written(1, head="{}\n"))
    with pytest.raises(LocalError, match="cannot read"):
        make(tmp_path / "missing")


def test_a_line_without_an_end_is_read_no_further(written):
    with pytest.raises(UsageError, match="no lines of more than"):
        make(Path("/dev/zero"))
    inside = written(1, end=f"{'7' * 10_000}\n{trace.END_LINE}")
    with pytest.raises(UsageError, match="no lines of more than"):
        make(inside)
