import os

import pytest

from oscirc_remote import ofd_locks
from oscirc_remote.ofd_locks import EXCLUSIVE, NONE, SHARED


@pytest.fixture
def files(tmp_path):
    """One file, opened twice: as two processes would have it."""
    opened = [os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def test_one_has_it_alone_or_several_share_it(files):
    one, other = files
    assert ofd_locks.take(one, EXCLUSIVE)
    assert not ofd_locks.take(other, EXCLUSIVE)
    assert not ofd_locks.take(other, SHARED)
    assert ofd_locks.take(one, SHARED)
    assert ofd_locks.take(other, SHARED)


def test_bytes_are_locked_each_for_itself(files):
    one, other = files
    assert ofd_locks.take(one, EXCLUSIVE, 5, 1)
    assert ofd_locks.take(other, EXCLUSIVE, 6, 1)
    assert not ofd_locks.take(other, EXCLUSIVE, 5, 1)
    assert ofd_locks.take(one, NONE, 5, 1)
    assert ofd_locks.take(other, EXCLUSIVE, 5, 1)


def test_it_is_gone_with_the_file_that_held_it(tmp_path, files):
    third = os.open(tmp_path / "lock", os.O_RDWR)
    assert ofd_locks.take(third, EXCLUSIVE)
    assert ofd_locks.is_held(files[0])
    os.close(third)
    assert not ofd_locks.is_held(files[0])
    assert ofd_locks.take(files[0], EXCLUSIVE)


def test_asking_takes_nothing(files):
    one, other = files
    assert not ofd_locks.is_held(one)
    assert ofd_locks.take(other, EXCLUSIVE)
    assert ofd_locks.is_held(one)
    assert not ofd_locks.is_held(other)  # its own does not count


def test_a_lock_that_cannot_be_had_is_the_system_s_error():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ofd_locks.take(reading, SHARED)
