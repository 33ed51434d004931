import os
import subprocess
from pathlib import Path

import pytest

from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_fusedriver import mountpoints
from oscirc_fusedriver.mountpoints import MountEntry, parse_mountinfo

LINES = (
    "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "90 22 0:41 / /mnt/with\\040space\\134 ro,nosuid,nodev shared:4 master:7 - fuse.oscirc oscirc ro,user_id=0\n"
    "91 22 0:42 / /mnt/plain ro - fuse.sshfs host: rw\n"
    "nonsense\n"
)


def test_mountinfo_is_read_with_its_escapes_and_optional_fields():
    assert parse_mountinfo(LINES) == [
        MountEntry(Path("/"), "253:0", "ext4", 22),
        MountEntry(Path("/mnt/with space\\"), "0:41", "fuse.oscirc", 90),
        MountEntry(Path("/mnt/plain"), "0:42", "fuse.sshfs", 91),
    ]


def test_what_is_mounted_here_is_found():
    assert mountpoints.entry_at(Path("/proc")).kind == "proc"
    assert mountpoints.entry_at(Path("/proc/self")) is None


def test_a_process_is_seen_to_have_a_file_open_on_a_mount():
    with Path("/proc/self/status").open():
        assert mountpoints.is_open_in(os.getpid(), Path("/proc"))
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert not mountpoints.is_open_in(child.pid, Path("/proc"))
        assert not mountpoints.is_open_in(child.pid, Path("/proc/self"))  # nothing is mounted there
    finally:
        child.communicate(timeout=10)
    assert not mountpoints.is_open_in(child.pid, Path("/dev"))  # it is gone


def test_an_empty_directory_is_usable(tmp_path):
    mountpoints.check_usable(tmp_path)


def test_what_is_unusable_is_said(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist") as absent:
        mountpoints.check_usable(tmp_path / "absent")
    assert "mkdir" in absent.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        mountpoints.check_usable(tmp_path / "file")
    with pytest.raises(UsageError, match=r"not empty \(file is in it\)"):
        mountpoints.check_usable(tmp_path)


def test_a_directory_that_answers_is_not_dead(tmp_path):
    assert not mountpoints.is_dead(tmp_path)
    assert not mountpoints.is_dead(tmp_path / "absent")


def test_nothing_stale_is_nothing_to_clean(tmp_path):
    assert mountpoints.clean_stale(Path(os.path.realpath(tmp_path))) is False
