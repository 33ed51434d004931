"""Mounting in the background: what the command waits for, what it hears, what it leaves behind."""

import os
import signal
import time
from pathlib import Path

import pytest

from oscirc_fusedriver import records
from oscirc_fusedriver.unmounting import Outcome, unmount

from .fuse_world import until


@pytest.fixture
def background(mounted):
    return lambda **script: mounted(foreground=False, **script)


def test_the_command_returns_when_the_disk_can_be_read(background, disk_file, mountpoint):
    mount = background(resident=True)
    assert mount.ends() == 0  # the command has ended, its output is closed
    assert mount.process.stdout.read() == mount.process.stderr.read() == ""
    assert mount.disk.read_bytes() == disk_file.read_bytes()
    assert mount.status().pid == mount.record.pid != mount.process.pid
    assert os.getsid(mount.record.pid) != os.getsid(0)
    assert Path(f"/proc/{mount.record.pid}/cwd").readlink() == Path("/")
    assert unmount(mountpoint) is Outcome.UNMOUNTED
    assert not mount.record.process.alive()


def test_warnings_reach_the_user_before_it_leaves(background):
    mount = background(resident=True, prepare="warn")
    mount.ends()
    assert mount.process.stderr.read() == "warning: as scripted\n"


@pytest.mark.parametrize(
    ("name", "code"), [("NotFoundError", 4 - 1), ("TrustError", 4), ("UnreachableError", 5), ("DigestMismatchError", 7)]
)
def test_an_error_on_the_way_is_the_commands(refused, name, code):
    failure = refused(foreground=False, prepare=f"raise {name}")
    assert (failure["error"], failure["message"], failure["exit_code"]) == (name, "as scripted", code)


def test_an_unexpected_error_on_the_way_is_told(refused):
    failure = refused(foreground=False, prepare="raise ValueError")
    assert failure["exit_code"] == 1
    assert "as scripted" in failure["message"]


@pytest.mark.parametrize("how", ["exit", "crash"])
def test_a_driver_that_dies_without_a_word_is_noticed(refused, how):
    failure = refused(foreground=False, prepare=how)
    assert "without a word" in failure["message"]


def test_a_failing_first_read_is_the_commands(refused):
    failure = refused(foreground=False, **{"raise": {"0": "UnreachableError"}})
    assert (failure["error"], failure["exit_code"]) == ("UnreachableError", 5)


def test_a_driver_that_takes_too_long_is_ended(refused):
    started = time.monotonic()
    failure = refused(foreground=False, prepare="hang", prepare_timeout_s=1, options={"ready_timeout_s": 0})
    assert failure["error"] == "DeadlineExceededError"
    assert time.monotonic() - started < 10


def test_a_driver_that_mounts_but_never_reads_is_ended_with_its_mount(refused):
    # the driver would wait 30 s for its first read; the command gives up after 2
    failure = refused(foreground=False, hang=[0], prepare_timeout_s=-28, options={"ready_timeout_s": 30})
    assert failure["error"] == "DeadlineExceededError"
    assert records.list_records() == []


def test_an_unusable_mount_point_is_told_before_anything_is_opened(refused, tmp_path):
    assert refused(tmp_path / "absent", foreground=False, prepare="raise TrustError")["error"] == "NotFoundError"


def test_what_goes_wrong_later_is_in_the_log(background):
    mount = background(**{"raise": {"1048576": "ValueError"}})
    with mount.disk.open("rb") as file, pytest.raises(OSError):
        os.pread(file.fileno(), 4096, 1048576)
    text = until(lambda: "Traceback" in mount.record.log.read_text() and mount.record.log.read_text(), "logged")
    assert "ValueError: as scripted at 1048576" in text


def test_a_background_driver_obeys_signals(background):
    mount = background(resident=True)
    os.kill(mount.record.pid, signal.SIGTERM)
    assert mount.record.process.wait(20)
    assert not mount.is_mounted()
    assert records.list_records() == []
