"""The small guest's disk as bytes: the same each time, well formed, and little different in its next version.

Nothing is booted and nothing is downloaded here: kernel, modules and busybox are stand-ins of a likely size.
"""

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "guests"))

import small
from guestdisks import distribution, ext4, initramfs, loaders, payload, programs, tree, userland

BLOCK_BYTES = 256 * 1024
MIB = 1 << 20
SIZE_MIB = 64
PAYLOAD_MIB = 4


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Return a kernel with two modules, and a busybox that knows five names for itself."""
    try:
        programs.require(["mke2fs", "debugfs", "e2fsck", "mcopy", "mkfs.vfat", "grub-mkimage"])
        programs.require([], {loaders.GRUB_FILES / "i386-pc": "grub-pc-bin"})
        programs.require([], {loaders.GRUB_FILES / "x86_64-efi": "grub-efi-amd64-bin"})
    except programs.BuildError as error:
        pytest.skip(f"no disk can be built here: {error}")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "vmlinuz").write_bytes(hashlib.shake_256(b"kernel").digest(5 * MIB))
    write_modules(folder / "modules", {"virtio_blk": "virtio", "virtio": ""})
    busybox = folder / "busybox"
    busybox.write_text("#!/bin/sh\nprintf '%s\\n' busybox sh ls mount poweroff\n")
    busybox.chmod(0o755)
    return distribution.Kernel("6.1.0-test", folder / "vmlinuz", folder / "modules"), busybox


@pytest.fixture
def on_stand_ins(stand_ins, monkeypatch):
    kernel, busybox = stand_ins
    monkeypatch.setattr(distribution, "kernel", lambda: kernel)
    monkeypatch.setattr(distribution, "busybox", lambda: busybox)


@pytest.fixture(scope="module")
def built():
    return {}


@pytest.fixture
def build(tmp_path_factory, built, on_stand_ins):
    """Build (and remember for this module) the small disk of a firmware and version."""

    def disk(firmware="bios", version=1, copy=1):
        key = (firmware, version, copy)
        if key not in built:
            built[key] = tmp_path_factory.mktemp("disk") / "disk.raw"
            small.build(built[key], small.SmallDisk(firmware, SIZE_MIB, version, PAYLOAD_MIB))
        return built[key]

    return disk


def write_modules(folder, modules):
    """Write stand-ins of kernel modules, given as name to the names it depends on."""
    drivers = folder / "kernel/drivers"
    drivers.mkdir(parents=True)
    for name, depends in modules.items():
        (drivers / f"{name}.ko").write_bytes(f"\x7fELF\0license=GPL\0depends={depends}\0name=x\0".encode())


def file_in(disk, path, offset=MIB):
    """Read one file of the ext4 file system at `offset` without mounting it."""
    view = f"{disk}?offset={offset}"
    return subprocess.run([programs.find("debugfs"), "-R", f"cat {path}", view], capture_output=True, check=True).stdout


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_same_arguments_give_the_same_bytes(build, firmware):
    first, second = build(firmware), build(firmware, copy=2)
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_bios_disk_has_one_active_linux_partition_and_grub_before_it(build):
    with build("bios").open("rb") as stream:
        sectors = stream.read(MIB)
    entry = sectors[446:462]
    assert sectors[510:512] == b"\x55\xaa"
    assert entry[0] == 0x80
    assert entry[4] == 0x83
    assert struct.unpack("<II", entry[8:16]) == (2048, SIZE_MIB * 2048 - 2048)
    assert not any(sectors[462:510])
    boot = (loaders.GRUB_FILES / "i386-pc/boot.img").read_bytes()
    assert sectors[:440] == boot[:440]
    assert any(sectors[512:1024])


def test_uefi_disk_has_an_efi_partition_with_the_removable_media_loader(build):
    with build("uefi").open("rb") as stream:
        stream.seek(512)
        header = stream.read(512)
        entries = stream.read(256)
        stream.seek(MIB)
        fat = stream.read(4 * MIB)
    assert header[:8] == b"EFI PART"
    types = [entries[start : start + 16] for start in (0, 128)]
    assert types[0] == bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
    assert types[1] == bytes.fromhex("af3dc60f838472478e793d69d8477de4")
    assert struct.unpack("<QQ", entries[32:48]) == (2048, 2048 + 4 * 2048 - 1)
    assert b"BOOTX64 EFI" in fat
    assert b"MZ" in fat


def test_root_file_system_holds_the_kernel_and_says_its_version(build):
    disk = build("bios", 2)
    assert file_in(disk, "/etc/oscirc-guest-version") == b"2\n"
    assert b"VERSION_ID=2\n" in file_in(disk, "/etc/os-release")
    assert file_in(disk, "/etc/hostname") == b"circuit\n"
    assert file_in(disk, "/boot/vmlinuz") == distribution.kernel().image.read_bytes()


def test_everything_belongs_to_root_and_commands_can_be_run(build):
    view = f"{build('bios')}?offset={MIB}"
    listing = subprocess.run(
        [programs.find("debugfs"), "-R", "ls -p /etc/init.d", view], capture_output=True, check=True, text=True
    ).stdout
    rows = [line.split("/")[2:6] for line in listing.splitlines() if line.startswith("/")]
    scripts = [row for row in rows if row[3] not in {".", ".."}]
    assert scripts
    assert all(row[:3] == ["100755", "0", "0"] for row in scripts)


def test_second_version_changes_few_blocks_and_no_size(build):
    one, two = build("bios", 1).read_bytes(), build("bios", 2).read_bytes()
    starts = range(0, len(one), BLOCK_BYTES)
    changed = [start for start in starts if one[start : start + BLOCK_BYTES] != two[start : start + BLOCK_BYTES]]
    assert len(one) == len(two) == SIZE_MIB * MIB
    assert 1 <= len(changed) <= 10


def test_failed_build_leaves_the_old_disk_and_nothing_else(on_stand_ins, tmp_path, monkeypatch):
    out = tmp_path / "disk.raw"
    out.write_bytes(b"the disk of yesterday")
    monkeypatch.setattr(ext4, "make", lambda *_, **__: programs.run("false"))
    with pytest.raises(programs.BuildError, match="false failed with exit code 1"):
        small.build(out, small.SmallDisk(size_mib=SIZE_MIB, payload_mib=0))
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]
    assert out.read_bytes() == b"the disk of yesterday"


def test_payload_too_large_for_the_disk_is_refused(on_stand_ins, tmp_path):
    with pytest.raises(programs.BuildError, match="needs a disk of 104 MiB"):
        small.build(tmp_path / "disk.raw", small.SmallDisk(size_mib=64, payload_mib=64))


def test_file_system_without_room_is_refused(tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(17 * MIB))
    nodes = [tree.file("/large", bytes(1) + b"x" * (24 * MIB))]
    with pytest.raises(programs.BuildError, match="debugfs could not fill the file system of 16 MiB"):
        ext4.make(disk, offset_bytes=MIB, size_bytes=16 * MIB, uuid=str(small._ROOT_UUID), label="root", nodes=nodes)


def test_missing_program_is_reported_with_its_package(monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda name, path=None: None)
    with pytest.raises(programs.BuildError, match=r"apt-get install .*e2fsprogs.*mtools"):
        programs.require(["mke2fs", "mcopy"])


def test_payload_has_the_size_asked_for_and_keeps_its_first_files():
    short, long = list(payload.files(3 * MIB)), list(payload.files(30 * MIB))
    assert sum(file.size_bytes for file in short) == 3 * MIB
    assert long[: len(short) - 1] == short[:-1]


@pytest.mark.parametrize("kind", ["text", "table", "media"])
def test_payload_content_is_fixed_and_a_new_generation_keeps_the_size(kind):
    file = payload.PayloadFile("x", 7, kind, 5001)
    assert payload.content(file, 1) == payload.content(file, 1)
    assert len(payload.content(file, 1)) == len(payload.content(file, 2)) == 5001
    assert payload.content(file, 1) != payload.content(file, 2)


def test_a_version_changes_three_payload_files_and_keeps_the_earlier_changes():
    def generations(version):
        return [userland.generation(number, 100, version) for number in range(100)]

    assert generations(1) == [1] * 100
    assert generations(2).count(2) == 3
    before, after = generations(2), generations(3)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 3


def test_modules_are_loaded_after_what_they_depend_on(tmp_path):
    write_modules(tmp_path, {"disk-driver": "bus,ring", "bus": "ring", "ring": "", "other": ""})
    files = initramfs.module_files(tmp_path, ["disk_driver", "built_in"])
    assert [name for name, _ in files] == ["ring.ko", "bus.ko", "disk_driver.ko"]


def test_parents_are_made_once_and_before_what_they_hold():
    nodes = tree.with_parents([tree.file("/a/b/c", b""), tree.file("/a/d", b""), tree.directory("/a")])
    assert [node.path for node in nodes] == ["/a", "/a/b", "/a/b/c", "/a/d"]
