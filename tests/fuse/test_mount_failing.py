"""Reads that fail: the program is told, the mount lives, nothing wrong is cached."""

import errno
import os
import threading

import pytest
from support import machine_time

from oscirc_fusedriver import control_client

from .fuse_world import until

MIB = 1024 * 1024


def fails(mount, offset: int, size: int = 4096) -> int:
    """The errno of a read that must fail."""
    with mount.disk.open("rb") as file, pytest.raises(OSError) as failure:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), size, offset)
    return failure.value.errno


def reads(mount, disk_file, offset: int, size: int = 4096) -> None:
    with mount.disk.open("rb") as file, disk_file.open("rb") as source:
        assert os.pread(file.fileno(), size, offset) == os.pread(source.fileno(), size, offset)


@pytest.mark.parametrize("name", ["ValueError", "KeyError", "MemoryError", "OSError", "RecursionError"])
def test_an_unexpected_exception_fails_that_read_and_no_other(mounted, disk_file, name):
    mount = mounted(**{"raise": {str(MIB): name}})
    assert fails(mount, MIB) == errno.EIO
    reads(mount, disk_file, 2 * MIB)
    driver = mount.status().driver
    assert driver.unexpected > 0
    assert "as scripted" in driver.last_error


def test_an_unexpected_exception_in_an_inline_read(mounted, disk_file, refused):
    failure = refused(resident_raises=True)
    assert "as scripted" in failure["message"]


@pytest.mark.parametrize(
    "name", ["DigestMismatchError", "DeadlineExceededError", "StoreFullError", "SignatureRefusedError"]
)
def test_a_known_error_is_an_input_output_error(mounted, disk_file, name):
    mount = mounted(**{"raise": {str(MIB): name}})
    assert fails(mount, MIB) == errno.EIO
    reads(mount, disk_file, 2 * MIB)
    driver = mount.status().driver
    assert (driver.unexpected, driver.last_error) == (0, f"as scripted at {MIB}")


def test_a_short_answer_is_an_error_and_never_zeros(mounted, disk_file):
    mount = mounted(short=[MIB])
    assert fails(mount, MIB) == errno.EIO
    reads(mount, disk_file, 2 * MIB)


def test_a_good_page_beside_a_bad_one_can_be_read(mounted, disk_file):
    mount = mounted(**{"raise": {str(MIB + 4096): "UnreachableError"}})
    reads(mount, disk_file, MIB)
    assert fails(mount, MIB + 4096) == errno.EIO


def test_an_error_takes_one_deadline_although_the_kernel_asks_twice(mounted):
    mount = mounted(slow={str(MIB): 0.5}, echo_s=60, **{"raise": {str(MIB): "DeadlineExceededError"}})
    before = mount.status().reader["reads"]
    with mount.disk.open("rb") as file:
        started = machine_time.clock()
        with pytest.raises(OSError, match="Input/output"):
            os.pread(file.fileno(), 128 * 1024, MIB)
        assert machine_time.clock() - started < 0.95
    assert mount.status().reader["reads"] == before + 1
    assert mount.status().driver.errors >= 2  # read-ahead, and the page that was waited for


def test_after_a_failure_the_same_read_is_tried_again(mounted):
    mount = mounted(**{"raise": {str(MIB): "UnreachableError"}})
    assert fails(mount, MIB) == errno.EIO
    before = mount.status().reader["reads"]
    until(lambda: fails(mount, MIB) and mount.status().reader["reads"] > before, "the reader is asked again")


def test_failing_reads_on_request_releases_those_that_wait(mounted, disk_file):
    mount = mounted(block=[MIB, 2 * MIB])
    codes = []

    def read(offset):
        codes.append(fails(mount, offset))

    waiting = [threading.Thread(target=read, args=(offset,)) for offset in (MIB, 2 * MIB)]
    for thread in waiting:
        thread.start()
    until(lambda: mount.status().reader["blocked"] == 2, "both reads wait")
    reads(mount, disk_file, 10 * MIB)  # others are served meanwhile
    started = machine_time.clock()
    control_client.fail_reads(mount.record, enabled=True)
    for thread in waiting:
        thread.join(10)
    assert machine_time.clock() - started < 3
    assert codes == [errno.EIO, errno.EIO]
    control_client.fail_reads(mount.record, enabled=False)
    assert mount.status().reader["failing"] is False


def test_a_reader_that_never_answers_cannot_hold_a_read_for_ever(mounted, disk_file):
    mount = mounted(hang=[MIB], options={"deadline_s": 1.5, "grace_s": 0.5})
    assert fails(mount, MIB) == errno.EIO
    reads(mount, disk_file, 2 * MIB)
    assert "no answer" in mount.status().driver.last_error


def test_killing_a_driver_that_fetches_and_pushes_frees_everybody(mounted):
    """Pages that a waiting read has locked are not pushed: the pushing thread could not be killed."""
    block = 256 * 1024
    mount = mounted(block_size=block, block=[2 * block], options={"read_ahead_kb": 128})
    codes = []

    def read_across():
        with mount.disk.open("rb") as file:
            try:
                os.preadv(file.fileno(), [bytearray(128 * 1024)], 2 * block - 64 * 1024)
            except OSError as error:
                codes.append(error.errno)

    waiting = threading.Thread(target=read_across)
    waiting.start()
    until(lambda: mount.status().reader["blocked"] == 1, "a read waits, with pages of the block before")
    with mount.disk.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4096, block)
    until(lambda: mount.status().driver.stores_skipped >= 1, "the rest of that block is not pushed")
    mount.process.kill()
    waiting.join(10)
    assert codes[0] in (errno.ENOTCONN, errno.ECONNABORTED)
    assert mount.process.wait(10) == -9
