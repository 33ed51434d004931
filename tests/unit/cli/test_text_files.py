"""Text files that a user names: bounded, UTF-8; what is none is refused by what is wrong with it."""

import os
import socket
from pathlib import Path

import pytest

from oscirc import composition, options
from oscirc.__main__ import main
from oscirc.text_files import bounded_text
from oscirc_blockstore.errors import LocalError, UsageError


def test_a_text_is_read_with_its_line_ends_made_the_same(tmp_path):
    file = tmp_path / "text"
    file.write_bytes("é\r\nb\rc\n".encode())
    assert bounded_text(file, 100, "the text") == "é\nb\nc\n"


def test_the_limit_counts_bytes_and_may_be_reached(tmp_path):
    file = tmp_path / "text"
    file.write_text("éé", encoding="utf-8")
    assert bounded_text(file, 4, "the text") == "éé"
    with pytest.raises(UsageError, match=r"the text from .*text: it has more than 3 bytes") as refused:
        bounded_text(file, 3, "the text", hint="shorten it")
    assert refused.value.hint == "shorten it"


def test_a_link_to_a_file_is_that_file(tmp_path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    assert bounded_text(tmp_path / "link", 1, "the text") == "a"


@pytest.mark.parametrize("limit", [18, 17])
def test_a_pipe_is_read_to_its_end_and_bounded(limit):
    reading, writing = os.pipe()
    os.write(writing, b"first, then second")
    os.close(writing)
    try:
        if limit == 18:
            assert bounded_text(Path(f"/dev/fd/{reading}"), limit, "the text") == "first, then second"
        else:
            with pytest.raises(UsageError, match="more than 17 bytes"):
                bounded_text(Path(f"/dev/fd/{reading}"), limit, "the text")
    finally:
        os.close(reading)


def test_what_has_no_end_reaches_the_bound():
    with pytest.raises(UsageError, match="more than 100 bytes"):
        bounded_text(Path("/dev/zero"), 100, "the text")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "there is no such file"),
        ("folder", "a folder, not a file"),
        ("socket", "cannot read the text"),
        ("file/below", "Not a directory"),
        ("loop", "symbolic links"),
        ("latin1", r"not UTF-8 text \(byte 2\)"),
        ("a\0b", "no file can be called that"),
    ],
)
def test_what_is_no_text_file_is_refused(tmp_path, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "latin1").write_bytes(b"ab\xe9")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(LocalError, match=told) as refused:
            bounded_text(tmp_path / name, 100, "the text")
    assert "the text" in str(refused.value)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):  # the superuser, as whom tests may run, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LocalError, match=r"cannot read the text from .*: Permission denied"):
        bounded_text(tmp_path / "text", 100, "the text")


def test_a_secret_is_a_files_text_without_its_last_line_end(tmp_path, capsys):
    file = tmp_path / "secret"
    file.write_bytes(b" correct horse \r\n")
    file.chmod(0o600)
    assert options.secret_from_file(file, "the passphrase") == " correct horse "
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    assert options.secret_from_file(file, "the passphrase") == " correct horse "
    assert "can be read by everybody" in capsys.readouterr().err


def test_a_secret_is_bounded_and_not_quoted_in_errors(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b"hidden" * 20_000)
    with pytest.raises(UsageError, match="more than 65536 bytes") as refused:
        options.secret_from_file(file, "the token")
    assert "hidden" not in str(refused.value)
    file.write_bytes(b"hidden\xff")
    with pytest.raises(LocalError, match="the token") as undecodable:
        options.secret_from_file(file, "the token")
    assert "hidden" not in str(undecodable.value)


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [(b"x" * 65_537, 2, "more than 65536 bytes"), (b"\xff", 6, "not UTF-8")],
)
def test_a_changelog_file_is_refused_before_the_disk_is_opened(tmp_path, monkeypatch, capsys, content, code, told):
    monkeypatch.setattr(composition, "parse_version_reference", lambda _text: None)  # there is no remote here
    file = tmp_path / "changes"
    file.write_bytes(content)
    disk = tmp_path / "missing.raw"
    assert main(["publish", str(disk), "test:alice/debian@1", "--key", "alice", "--changelog-file", str(file)]) == code
    error = capsys.readouterr().err
    assert "the changelog" in error
    assert told in error


def test_a_readme_may_begin_with_a_byte_order_mark_and_is_named_in_errors(tmp_path, capsys):
    file = tmp_path / "README.md"
    describe = ["describe", "test:alice/debian", "--key", "alice", "--readme", str(file)]
    file.write_bytes(b"\xef\xbb\xbfa\x1bb")  # refused for what follows the mark, in the line where it is
    assert main(describe) == 2
    assert "U+001B in line 1" in capsys.readouterr().err
    file.unlink()
    file.mkdir()
    assert main(describe) == 2  # click says that it is a directory
    assert "README" in capsys.readouterr().err
