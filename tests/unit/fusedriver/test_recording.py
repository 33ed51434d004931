"""Recorders: what was read is in the file, and a file that lacks something says so by lacking its last line."""

import os
import resource

import pytest

from oscirc_blockstore import trace
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.trace import TraceHead
from oscirc_fusedriver import recording
from oscirc_fusedriver.recording import Recorder

HEAD = TraceHead(1 << 20, digest_of(b"disk"))


def reads_in(file):
    with file.open() as lines:
        head, reads = trace.parse(lines)
        assert head == HEAD
        return [(read.offset, read.length) for read in reads]


def test_reads_are_in_the_file_in_their_order_and_it_is_whole_once_closed(tmp_path):
    file = tmp_path / "trace"
    recorder = Recorder(file, HEAD)
    for number in range(2500):  # more than are gathered
        recorder.note(number, 512)
    assert not trace.ends(file)
    assert not recorder.ended
    recorder.close()
    recorder.close()
    recorder.note(0, 1)
    assert recorder.ended
    assert trace.ends(file)
    assert reads_in(file) == [(number, 512) for number in range(2500)]
    assert (recorder.reads, recorder.problem) == (2500, "")


def test_what_was_read_is_on_the_disk_soon_even_when_little_is(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_FLUSH_S", -1)
    file = tmp_path / "trace"
    recorder = Recorder(file, HEAD)
    recorder.note(4096, 512)
    assert reads_in(file) == [(4096, 512)]
    recorder.close()


def test_a_file_that_is_there_is_not_overwritten_and_one_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "trace").write_text("mine")
    for place in (tmp_path / "trace", tmp_path / "none" / "trace"):
        with pytest.raises(LocalError, match=str(place)):
            Recorder(place, HEAD)
    assert (tmp_path / "trace").read_text() == "mine"


def test_a_full_disk_ends_the_recording_and_no_read(tmp_path, monkeypatch):
    file = tmp_path / "trace"
    recorder = Recorder(file, HEAD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        for number in range(2500):
            recorder.note(number, 512)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert recorder.ended
    assert "ended" in recorder.problem
    recorder.close()
    assert os.stat(file).st_size <= 200  # noqa: PTH116
    assert not trace.ends(file)


def test_a_recording_is_bounded_and_one_that_was_cut_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "MAX_READS", 3)
    file = tmp_path / "trace"
    recorder = Recorder(file, HEAD)
    for number in range(5):
        recorder.note(number, 512)
    recorder.close()
    assert reads_in(file) == [(0, 512), (1, 512), (2, 512)]
    assert "after 3 reads" in recorder.problem
    assert not trace.ends(file)
