"""How mounts begin and end."""

import contextlib
import errno
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from oscirc_blockstore.errors import BusyError, LocalError, NotFoundError, UsageError
from oscirc_fusedriver import control_client, kernel, mountpoints, records, unmounting
from oscirc_fusedriver.unmounting import Outcome, unmount

from .fuse_world import gone, until


def test_a_mount_is_recorded_while_it_lives(mounted, mountpoint):
    mount = mounted(resident=True)
    assert records.find(mountpoint) == mount.record
    assert records.list_records() == [mount.record]
    assert (mount.record.pid, mount.record.reference) == (mount.process.pid, "test:alice/disk")
    status = mount.status()
    assert (status.pid, status.mountpoint) == (mount.process.pid, str(mountpoint))
    assert unmount(mountpoint) is Outcome.UNMOUNTED
    assert mount.ends() == 0
    assert records.list_records() == []
    assert not mount.record.socket.exists()


def test_root_gets_a_long_read_ahead(mounted):
    if os.geteuid() != 0:
        pytest.skip("only root may raise it")
    mount = mounted(resident=True)
    until(lambda: mount.status().read_ahead_kb == 1024, "the read-ahead is raised")


def test_while_something_is_missing_the_kernel_reads_no_further_ahead_than_it_does(mounted):
    mount = mounted(block_size=4096)
    mount.record.disk.read_bytes()
    assert mount.status().read_ahead_kb == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(mounted, number):
    mount = mounted(resident=True)
    mount.process.send_signal(number)
    assert mount.ends() == 0
    assert not mount.is_mounted()
    assert records.list_records() == []


def test_a_signal_while_a_file_is_open_detaches(mounted, mountpoint, disk_file):
    mount = mounted(resident=True)
    with mount.disk.open("rb") as file:
        mount.process.send_signal(signal.SIGTERM)
        until(lambda: not mount.is_mounted(), "detached")
        until(lambda: records.find(mountpoint) is None, "its record is gone")
        assert os.pread(file.fileno(), 100, 5000) == disk_file.read_bytes()[5000:5100]
        again = mounted(resident=True)  # the place is free while the first still serves
        assert again.disk.read_bytes() == disk_file.read_bytes()
        assert mount.process.poll() is None
    assert mount.ends() == 0
    assert records.find(mountpoint) == again.record
    assert again.status().pid == again.process.pid


def test_a_second_signal_ends_it_at_once(mounted):
    mount = mounted(resident=True)
    with mount.disk.open("rb") as file:
        mount.process.send_signal(signal.SIGTERM)
        until(lambda: not mount.is_mounted(), "detached")
        until(lambda: records.find(mount.mountpoint) is None, "its record is gone")
        mount.process.send_signal(signal.SIGTERM)
        assert mount.ends() == 0
        with pytest.raises(OSError) as failure:
            os.pread(file.fileno(), 100, 3_000_000)
        assert failure.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def test_unmounting_says_who_uses_it(mounted, mountpoint):
    mount = mounted(resident=True)
    with mount.disk.open("rb"):
        with pytest.raises(BusyError, match=rf"in use by .*\({os.getpid()}\)"):
            unmount(mountpoint)
        assert mount.is_mounted()
        assert unmount(mountpoint, lazy=True) is Outcome.DETACHED
        assert not mount.is_mounted()
    assert mount.ends() == 0


def test_unmounting_may_be_repeated(mounted, mountpoint):
    mounted(resident=True)
    assert unmount(mountpoint) is Outcome.UNMOUNTED
    assert unmount(mountpoint) is Outcome.NOT_MOUNTED


def test_who_unmounts_second_waits_for_the_driver_as_the_first_does(mounted, mountpoint, tmp_path):
    closed = tmp_path / "closed"
    mount = mounted(resident=True, closed=str(closed))
    mount.process.send_signal(signal.SIGTERM)
    until(lambda: records.find(mountpoint) is None, "its record is gone")
    assert unmount(mountpoint) is Outcome.NOT_MOUNTED
    assert closed.exists()  # and with it, what the image needs of the cache is nobody's any more
    assert mount.ends() == 0


def test_many_may_unmount_at_once_and_each_waits_for_the_driver(mounted, mountpoint, tmp_path):
    closed = tmp_path / "closed"
    mount = mounted(resident=True, closed=str(closed))

    def unmounts(_number):
        return unmount(mountpoint, lazy=True), closed.exists()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(unmounts, range(8)))
    assert {waited for _, waited in found} == {True}
    assert {outcome for outcome, _ in found} <= {Outcome.UNMOUNTED, Outcome.NOT_MOUNTED}
    assert mount.ends() == 0


def test_fusermount_from_outside_ends_it_too(mounted):
    mount = mounted(resident=True)
    subprocess.run(kernel.unmount_command(mount.mountpoint), check=True)
    assert mount.ends() == 0
    assert records.list_records() == []


def test_a_driver_that_does_not_answer_is_unmounted_all_the_same(mounted, mountpoint):
    mount = mounted(resident=True)
    mount.record.socket.unlink()
    assert unmount(mountpoint) is Outcome.UNMOUNTED
    assert mount.ends() == 0


def kill(mount) -> None:
    mount.process.kill()
    mount.process.wait(10)
    assert mountpoints.is_dead(mount.mountpoint)


def test_a_dead_mount_is_cleaned_up_by_unmounting(mounted, mountpoint):
    mount = mounted(resident=True)
    kill(mount)
    assert unmount(mountpoint) is Outcome.CLEANED
    assert not mount.is_mounted()
    assert records.list_records() == []
    assert unmount(mountpoint) is Outcome.NOT_MOUNTED


def test_a_dead_mount_is_mounted_over(mounted, disk_file):
    kill(mounted(resident=True))
    again = mounted(resident=True)
    assert again.disk.read_bytes() == disk_file.read_bytes()
    assert records.list_records() == [again.record]


def test_dead_mounts_are_found_by_their_records(mounted, mountpoint, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    kill(mounted(resident=True))
    living = mounted(other, resident=True)
    assert unmounting.clean_all_stale() == [mountpoint]
    assert records.list_records() == [living.record]


def test_a_dead_mount_without_a_record_is_cleaned_up(mounted, mountpoint):
    mount = mounted(resident=True)
    kill(mount)
    mount.record.remove()
    assert unmount(mountpoint) is Outcome.CLEANED


def test_a_record_of_a_process_number_that_was_given_away_is_stale(mounted, mountpoint):
    mount = mounted(resident=True)
    kill(mount)
    record = records.find(mountpoint)
    type(record)(**{**{name: getattr(record, name) for name in record.__slots__}, "pid": os.getpid()}).write()
    assert unmount(mountpoint) is Outcome.CLEANED


def test_mounting_twice_is_refused(mounted, mountpoint, drivers, disk_file):
    mount = mounted(resident=True)
    failure = drivers.said(drivers.start(mountpoint, disk=str(disk_file)))["failure"]
    assert (failure["error"], failure["message"]) == ("BusyError", f"alice/disk is already mounted at {mountpoint}")
    assert mount.disk.read_bytes() == disk_file.read_bytes()


def test_an_unusable_mount_point_is_refused(refused, tmp_path):
    assert refused(tmp_path / "absent")["error"] == NotFoundError.__name__
    file = tmp_path / "file"
    file.write_text("x")
    assert refused(file)["error"] == UsageError.__name__
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter").write_text("x")
    failure = refused(full)
    assert failure["error"] == UsageError.__name__
    assert "letter" in failure["message"]


def test_the_reason_of_a_failing_first_read_is_told(refused):
    failure = refused(**{"raise": {"0": "DigestMismatchError"}})
    assert (failure["error"], failure["message"]) == ("DigestMismatchError", "as scripted at 0")


def test_a_disk_that_cannot_be_read_in_time_is_not_mounted(refused):
    failure = refused(hang=[0], options={"ready_timeout_s": 0.5})
    assert failure["error"] == "DeadlineExceededError"


def test_a_stopped_driver_can_be_unmounted(mounted, mountpoint):
    mount = mounted(resident=True)
    mount.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(LocalError, match="still runs"):
            unmount(mountpoint, timeout_s=1)
        assert not mount.is_mounted()
    finally:
        mount.process.send_signal(signal.SIGCONT)
    assert mount.ends() == 0


def waits(record):
    with contextlib.suppress(control_client.NoAnswerError):  # its socket is there before it listens
        return record.socket.exists() and control_client.status(record).driver.waited


def test_a_signal_before_it_is_ready_ends_it_at_once(drivers, mountpoint, disk_file):
    process = drivers.start(mountpoint, disk=str(disk_file), hang=[0])
    record = until(lambda: records.find_at(mountpoint), "mounted, not yet read")
    until(lambda: waits(record), "its first read waits")
    process.send_signal(signal.SIGTERM)
    assert "before it could be read" in drivers.said(process)["failure"]["message"]
    assert process.wait(30) == 6
    assert mountpoints.entry_at(mountpoint) is None


def test_a_driver_that_hangs_does_not_hold_up_a_look(mounted):
    mount = mounted(resident=True)
    mount.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(control_client.NoAnswerError):
            control_client.status(mount.record, timeout_s=0.3)
        assert not gone(mount.record)
    finally:
        mount.process.send_signal(signal.SIGCONT)
    assert mount.status().pid == mount.process.pid
