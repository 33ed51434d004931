import os
import shutil
import subprocess

import pytest

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DiskRefusedError, LocalError, MissingProgramError, NotFoundError
from oscirc_publisher import probing
from oscirc_publisher.disks import RawDisk, open_disk
from oscirc_publisher.opened_file import check_disk_size

from .conftest import KIB, MIB, mixed_bytes


def write(path, raw):
    path.write_bytes(raw)
    return path


def test_a_raw_disk_reads_as_its_file(tmp_path):
    raw = mixed_bytes(MIB + 512)
    disk = open_disk(write(tmp_path / "a.raw", raw))
    assert isinstance(disk, RawDisk)
    assert disk.size == len(raw)
    assert disk.read(0, len(raw)) == raw
    assert disk.read(MIB, 64 * KIB) == raw[MIB:]
    assert disk.read(100, 7) == raw[100:107]
    disk.check_unchanged()
    disk.close()
    disk.close()


def test_the_extents_of_a_raw_disk_leave_its_holes_out(tmp_path):
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(3 * MIB)
        file.write(b"x" * MIB)
        file.seek((1 << 39) + 4096)
        file.write(b"y")
    disk = open_disk(path)
    extents = list(disk.extents())
    assert extents[0] == ByteRange(3 * MIB, 4 * MIB)
    assert extents[1].start == (1 << 39) + 4096
    assert sum(extent.size for extent in extents) <= MIB + 64 * KIB
    disk.close()


@pytest.mark.parametrize("tail", [0, MIB])
def test_a_disk_that_ends_in_data_or_a_hole(tmp_path, tail):
    path = write(tmp_path / "a.raw", b"x" * MIB)
    os.truncate(path, MIB + tail)
    disk = open_disk(path)
    assert list(disk.extents()) == [ByteRange(0, MIB)]
    disk.close()


def test_a_disk_of_nothing_but_a_hole_has_no_extents(tmp_path):
    path = write(tmp_path / "a.raw", b"")
    os.truncate(path, MIB)
    disk = open_disk(path)
    assert list(disk.extents()) == []
    disk.close()


def test_a_file_system_that_knows_no_holes_gives_the_whole_disk(tmp_path, monkeypatch):
    disk = open_disk(write(tmp_path / "a.raw", b"x" * MIB))

    def refuse(descriptor, offset, whence):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(disk.extents()) == [ByteRange(0, MIB)]
    disk.close()


@pytest.mark.parametrize(
    ("size", "words"), [(0, "empty"), (511, "512-byte"), (MIB + 1, "512-byte"), (1 << 47, "64 TiB")]
)
def test_sizes_that_no_disk_has_are_refused(tmp_path, size, words):
    with pytest.raises(DiskRefusedError, match=words):
        check_disk_size(size, "it")
    if size < 1 << 40:
        path = write(tmp_path / "a.raw", b"")
        os.truncate(path, size)
        with pytest.raises(DiskRefusedError, match=words):
            open_disk(path, "raw")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/null"):
        with pytest.raises(DiskRefusedError, match="neither a file"):
            open_disk(path)
    with pytest.raises(NotFoundError):
        open_disk(tmp_path / "absent")


def test_a_format_that_is_not_supported_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(DiskRefusedError) as caught:
        open_disk(write(tmp_path / "a.vhd", bytes(MIB)), "vpc")
    assert caught.value.hint == "supported: raw, qcow2, vmdk, vdi, vhdx"


@pytest.mark.parametrize("how", ["grow", "rewrite", "touch"])
def test_a_file_that_changed_is_noticed(tmp_path, how):
    path = write(tmp_path / "a.raw", bytes(MIB))
    os.utime(path, ns=(10**18, 10**18))
    disk = open_disk(path)
    if how == "grow":
        os.truncate(path, 2 * MIB)
        os.utime(path, ns=(10**18, 10**18))
    elif how == "rewrite":
        with path.open("r+b") as file:
            file.write(b"x")
    else:
        os.utime(path, ns=(10**18, 10**18 + 1))
    with pytest.raises(DiskRefusedError, match="changed while"):
        disk.check_unchanged()
    disk.close()


def test_a_file_that_became_shorter_is_an_error_not_zeros(tmp_path):
    path = write(tmp_path / "a.raw", b"x" * MIB)
    disk = open_disk(path)
    os.truncate(path, 512)
    with pytest.raises(DiskRefusedError, match="shorter"):
        disk.read(0, 4096)
    disk.close()


def test_another_file_under_the_same_name_is_not_read(tmp_path):
    path = write(tmp_path / "a.raw", b"x" * MIB)
    disk = open_disk(path)
    path.unlink()
    write(path, b"y" * MIB)
    assert disk.read(0, 1) == b"x"
    disk.check_unchanged()
    disk.close()


def test_a_read_error_names_the_place(tmp_path, monkeypatch):
    disk = open_disk(write(tmp_path / "a.raw", b"x" * MIB))

    def fail(descriptor, size, offset):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(LocalError, match="at byte 4096: Input/output"):
        disk.read(4096, 10)
    disk.close()


def disk_with(tmp_path, head, size=8 * MIB, at=0):
    path = write(tmp_path / "disk", b"")
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(at)
        file.write(head)
    return path


MBR = bytes(446) + bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0, 0]) + bytes(48) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("head", "at"),
    [(b"", 0), (MBR, 0), (b"\x01CD001\x01", 32768), (b"\xeb\x3c\x90mkfs.fat", 0)],
    ids=["zeros", "mbr", "iso", "fat"],
)
def test_the_content_of_a_disk_is_detected_as_raw(tmp_path, head, at):
    disk = open_disk(disk_with(tmp_path, head, at=at))
    assert isinstance(disk, RawDisk)
    disk.close()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"conectix", "vhd"),
        (b"QED\0", "qed"),
        (b"LUKS\xba\xbe\0\x01", "luks"),
    ],
)
def test_containers_of_other_formats_are_refused_unless_declared_raw(tmp_path, head, kind):
    path = disk_with(tmp_path, head)
    with pytest.raises(DiskRefusedError, match=kind) as caught:
        open_disk(path)
    assert "raw, qcow2" in caught.value.hint
    open_disk(path, "raw").close()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"KDMV\x01\0\0\0", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"<<< Oracle VM VirtualBox Disk Image >>>\n" + bytes(24) + b"\x7f\x10\xda\xbe", "vdi"),
    ],
)
def test_what_begins_like_a_container_and_is_none_is_refused_unless_declared_raw(tmp_path, head, kind):
    path = disk_with(tmp_path, head)
    with pytest.raises(DiskRefusedError, match=kind):
        open_disk(path)
    open_disk(path, "raw").close()


def test_a_fixed_vhd_is_known_by_its_end(tmp_path):
    with pytest.raises(DiskRefusedError, match="vhd"):
        open_disk(disk_with(tmp_path, b"conectix", at=8 * MIB - 512))


def test_a_disk_with_two_readings_must_be_declared(tmp_path):
    path = disk_with(tmp_path, b"QFI\xfb\0\0\0\x03" + MBR[8:])
    with pytest.raises(DiskRefusedError, match="gpt and qcow2") as caught:
        open_disk(path)
    assert "--format" in caught.value.hint
    open_disk(path, "raw").close()


def test_a_raw_disk_that_looks_like_a_qcow2_is_read_as_declared(tmp_path):
    head = b"QFI\xfb\0\0\0\x03" + bytes(100)
    path = disk_with(tmp_path, head)
    with pytest.raises(DiskRefusedError):  # taken for a container, and not a sound one
        open_disk(path)
    disk = open_disk(path, "raw")
    assert disk.read(0, 8) == head[:8]
    disk.close()


def test_without_the_inspector_the_format_must_be_declared(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "oslo_utils.imageutils", None)
    path = disk_with(tmp_path, b"")
    with pytest.raises(MissingProgramError) as caught:
        open_disk(path)
    assert "--format" in caught.value.hint
    open_disk(path, "raw").close()


def test_probing_reads_a_bounded_part_only(tmp_path, monkeypatch):
    path = disk_with(tmp_path, b"", size=1 << 40)
    seen = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: seen.append(size) or real(fd, size, at))
    open_disk(path).close()
    assert sum(seen) <= probing._PROBED_BYTES + probing._FOOTER_BYTES


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
def test_a_block_device_is_a_raw_disk_and_is_refused_while_mounted(tmp_path):
    image = write(tmp_path / "fs.raw", bytes(8 * MIB))
    subprocess.run([shutil.which("mke2fs") or "/sbin/mke2fs", "-q", "-F", image], check=True)
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        disk = open_disk(device)
        assert disk.size == 8 * MIB
        assert list(disk.extents()) == [ByteRange(0, 8 * MIB)]
        assert disk.read(0, 8 * MIB) == image.read_bytes()
        disk.close()
        (tmp_path / "mnt").mkdir()
        subprocess.run(["mount", device, tmp_path / "mnt"], check=True)
        try:
            with pytest.raises(DiskRefusedError, match="in use"):
                open_disk(device)
        finally:
            subprocess.run(["umount", tmp_path / "mnt"], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
