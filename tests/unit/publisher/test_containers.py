import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DiskRefusedError, LocalError, MissingProgramError
from oscirc_publisher import containers
from oscirc_publisher.containers import ContainerDisk
from oscirc_publisher.disks import open_disk

from .conftest import KIB, MIB, mixed_bytes


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "a.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB + 512)
        file.seek(5 * MIB)
        file.write(mixed_bytes(3 * MIB))
        file.seek(64 * MIB)
        file.write(b"end!" * 128)
    return path


def convert(raw, *options):
    path = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)], check=True)
    return path


def holds(disk, raw):
    expected = raw.read_bytes()
    step = 7 * MIB + 512
    return b"".join(disk.read(at, step) for at in range(0, disk.size, step)) == expected


@pytest.mark.parametrize(
    "options",
    [(), ("-c",), ("-o", "compat=0.10"), ("-c", "-o", "compression_type=zstd"), ("-o", "extended_l2=on")],
)
def test_a_container_reads_as_the_disk_inside(raw, options):
    disk = open_disk(convert(raw, *options))
    assert isinstance(disk, ContainerDisk)
    assert disk.size == 64 * MIB + 512
    assert holds(disk, raw)
    extents = list(disk.extents())
    assert extents[0].start == 5 * MIB
    assert extents[-1].stop == disk.size
    assert sum(extent.size for extent in extents) <= 4 * MIB
    disk.check_unchanged()
    disk.close()


def test_what_is_declared_qcow2_is_not_probed(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "oslo_utils.imageutils", None)
    disk = open_disk(convert(raw), "qcow2")
    assert holds(disk, raw)
    disk.close()
    with pytest.raises(DiskRefusedError, match="no qcow2"):
        open_disk(raw, "qcow2")


def test_the_current_state_is_read_not_a_snapshot(raw):
    path = convert(raw)
    subprocess.run(["qemu-img", "snapshot", "-c", "old", str(path)], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 64k", str(path)], check=True, capture_output=True)
    disk = open_disk(path)
    assert disk.read(5 * MIB, 64 * KIB) == b"\x07" * (64 * KIB)
    disk.close()


def test_many_threads_read_side_by_side(raw):
    disk = open_disk(convert(raw))
    expected = raw.read_bytes()
    wrong = []

    def read(start):
        places = range(start, len(expected), 40 * 64 * KIB)
        wrong.extend(at for at in places if disk.read(at, 64 * KIB) != expected[at : at + 64 * KIB])

    threads = [threading.Thread(target=read, args=(start * 64 * KIB,)) for start in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    disk.close()


def test_closing_ends_qemu_and_leaves_nothing(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    disk = open_disk(convert(raw))
    process = disk._server.process
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "t").iterdir()] == [0o700]
    disk.close()
    assert process.poll() is not None
    assert list((tmp_path / "t").iterdir()) == []
    disk.close()


def test_qemu_goes_when_its_reader_is_killed(raw):
    path = convert(raw)
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from oscirc_publisher.disks import open_disk\n"
        "disk = open_disk(Path(sys.argv[1]))\n"
        "print(disk._server.process.pid, disk._server.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, directory = done.stdout.split()
    assert ended(int(pid))
    subprocess.run(["rm", "-r", directory], check=True)


def ended(pid):
    """Whether the process ends within 10 seconds; a zombie that nobody reaps has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    import select

    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_a_server_that_dies_is_an_error_of_this_machine(raw):
    disk = open_disk(convert(raw))
    disk._server.process.kill()
    disk._server.process.wait()
    with pytest.raises(LocalError):
        disk.read(0, 4096)
    with pytest.raises(LocalError):
        list(disk.extents())
    disk.close()


@pytest.mark.parametrize("options", [(), ("-c",)])
def test_half_a_download_is_refused_and_not_read_as_zeros(raw, options):
    path = convert(raw, *options)
    os.truncate(path, path.stat().st_size - 256 * KIB)
    with pytest.raises(DiskRefusedError, match="damaged or incomplete") as caught:
        open_disk(path)
    assert "complete download" in caught.value.hint


def test_a_crafted_map_is_refused(raw):
    path = convert(raw)
    l1_offset = int.from_bytes(path.read_bytes()[40:48])
    with path.open("r+b") as file:
        file.seek(l1_offset)
        file.write((1 << 63 | 1 << 50).to_bytes(8))  # an L2 table far outside the file
    with pytest.raises(DiskRefusedError, match="damaged or incomplete"):
        open_disk(path)


def test_leaked_clusters_are_harmless(raw):
    path = convert(raw)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "discard 5M 64k", str(path)], check=True, capture_output=True)
    open_disk(path).close()


def test_what_qemu_cannot_open_is_refused_with_its_words(raw, monkeypatch):
    path = convert(raw)
    monkeypatch.setitem(containers.JUDGES, "qcow2", lambda opened: 64 * MIB)
    with path.open("r+b") as file:
        file.seek(4)
        file.write((9).to_bytes(4))
    with pytest.raises(DiskRefusedError, match="QEMU cannot read"):
        open_disk(path, "qcow2")
    monkeypatch.setattr(containers, "check_container", lambda descriptor, form: None)
    with pytest.raises(LocalError, match=r"QEMU cannot open the container.*version 9"):
        open_disk(path, "qcow2")


def test_a_backing_file_that_appears_after_the_check_is_not_followed(raw, tmp_path, monkeypatch):
    """Even if the header were changed under our feet, QEMU is told to open nothing else."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret!!" * (8 * MIB))
    path = tmp_path / "a.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(path), "64M"], check=True
    )
    monkeypatch.setitem(containers.JUDGES, "qcow2", lambda opened: 64 * MIB)
    disk = open_disk(path, "qcow2")
    assert disk.read(0, 4096) == bytes(4096)
    disk.close()


def test_a_change_of_the_container_is_noticed(raw):
    path = convert(raw)
    disk = open_disk(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DiskRefusedError, match="changed"):
        disk.check_unchanged()
    disk.close()


def test_without_qemu_nbd_the_user_is_told_what_to_install(raw, monkeypatch):
    path = convert(raw)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgramError) as caught:
        open_disk(path)
    assert "qemu-utils" in caught.value.hint


def test_an_empty_container_has_no_extents(tmp_path):
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1T"], check=True)
    disk = open_disk(path)
    assert disk.size == 1 << 40
    assert list(disk.extents()) == []
    disk.close()


def test_a_container_full_of_data_is_one_extent_after_another(tmp_path):
    path = tmp_path / "full.raw"
    path.write_bytes(b"x" * (2 * MIB))
    disk = open_disk(convert(path))
    extents = list(disk.extents())
    assert extents[0].start == 0
    assert sum(extent.size for extent in extents) == 2 * MIB
    assert all(isinstance(extent, ByteRange) for extent in extents)
    disk.close()
    assert Path(path).exists()
