from pathlib import Path

import pytest

from oscirc_blockstore.errors import LocalError, MissingProgramError
from oscirc_fusedriver import kernel


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program called fusermount3 on an otherwise empty path."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def install(text: str) -> None:
        file = directory / "fusermount3"
        file.write_text("#!/bin/sh\n" + text)
        file.chmod(0o755)

    return install


def test_a_missing_package_is_named(program, tmp_path):
    with pytest.raises(MissingProgramError) as missing:
        kernel.check_fuse()
    assert "apt-get install fuse3" in missing.value.hint
    with pytest.raises(MissingProgramError):
        kernel.unmount_now(tmp_path)


def test_a_missing_device_is_explained(program, tmp_path):
    program("")
    with pytest.raises(LocalError, match="no FUSE") as missing:
        kernel.check_fuse(tmp_path / "fuse")
    assert "modprobe fuse" in missing.value.hint


def test_a_closed_device_is_explained(program, tmp_path, monkeypatch):
    program("")
    (tmp_path / "fuse").touch()
    kernel.check_fuse(tmp_path / "fuse")
    monkeypatch.setattr(kernel.os, "access", lambda path, _: path != tmp_path / "fuse")
    monkeypatch.setattr(kernel.shutil, "which", lambda _: "/usr/bin/fusermount3")
    with pytest.raises(LocalError, match="not allowed"):
        kernel.check_fuse(tmp_path / "fuse")


@pytest.mark.parametrize(("before", "after"), [("128", 1024), ("1024", 1024), ("4096", 4096)])
def test_read_ahead_is_raised_and_never_lowered(tmp_path, before, after):
    setting = tmp_path / "0:55" / "read_ahead_kb"
    setting.parent.mkdir()
    setting.write_text(before + "\n")
    assert kernel.raise_read_ahead("0:55", 1024, tmp_path) == after
    assert int(setting.read_text()) == after


def test_read_ahead_that_cannot_be_raised_is_no_error(tmp_path):
    assert kernel.raise_read_ahead("0:55", 1024, tmp_path) == 0
    assert kernel.raise_read_ahead("", 1024, tmp_path) == 0


def test_a_connection_is_cut_where_that_is_possible(tmp_path):
    control = tmp_path / "55" / "abort"
    control.parent.mkdir()
    kernel.abort("0:55", tmp_path)
    assert control.read_text() == "1"
    kernel.abort("0:56", tmp_path)
    kernel.abort("", tmp_path / "absent")


def test_unmounting_gives_the_programs_own_words(program):
    program('echo "$@" >&2; exit 1')
    assert kernel.unmount_now(Path("/a b")) == "-u -- /a b"
    assert kernel.unmount_now(Path("/a b"), lazy=True) == "-u -z -- /a b"
    program("exit 3")
    assert kernel.unmount_now(Path("/x")) == "fusermount3: exit 3"
    program("exit 0")
    assert kernel.unmount_now(Path("/x")) == ""


def test_an_unmounting_that_hangs_is_given_up(program, monkeypatch):
    monkeypatch.setattr(kernel, "_PROGRAM_TIMEOUT_S", 0.1)
    program("exec 1>&- 2>&-; read nothing < /proc/$$/fd/0; while :; do :; done")
    assert "did not end" in kernel.unmount_now(Path("/x"))


def test_busy_is_recognised():
    assert kernel.is_busy("fusermount3: failed to unmount /x: Device or resource busy")
    assert not kernel.is_busy("fusermount3: entry for /x not found in /etc/mtab")
