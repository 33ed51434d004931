import errno
import os
import stat

import pytest

from oscirc_blockstore.errors import LocalError, StoreFullError
from oscirc_remote.local_files import children, make_directory, read_bytes, read_document, write_atomically


def test_what_is_written_is_private_and_reads_back(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_atomically(path, b'{"a":1}')
    write_atomically(path, b'{"a":2}')
    assert read_document(path) == {"a": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StoreFullError), (errno.EIO, LocalError)])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, code, error):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_absence_is_no_error(tmp_path):
    assert read_bytes(tmp_path / "missing") is None
    assert read_document(tmp_path / "missing") is None


def test_a_file_that_is_too_long_or_malformed_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    with pytest.raises(LocalError, match="more than 10 bytes"):
        read_bytes(path, 10)
    with pytest.raises(LocalError, match="file") as refusal:
        read_document(path)
    assert refusal.value.hint
    with pytest.raises(LocalError, match="cannot read"):
        read_bytes(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot make"):
        make_directory(tmp_path / "file" / "below")


def test_what_stands_in_a_directory_that_goes_is_nothing(tmp_path):
    for name in ("b.json", "a.json", ".hidden.json", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in children(tmp_path, ".json")] == ["a.json", "b.json"]
    assert [path.name for path in children(tmp_path)] == ["a.json", "b.json", "c.txt"]
    assert children(tmp_path / "gone") == children(tmp_path / "c.txt") == []


def test_a_directory_that_cannot_be_looked_at_is_said_to_be(tmp_path):
    with pytest.raises(LocalError, match="cannot look at"):
        children(tmp_path / ("x" * 300))
