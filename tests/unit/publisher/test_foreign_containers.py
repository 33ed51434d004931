"""vmdk, vdi and vhdx through `open_disk`: real ones of qemu-img, byte for byte, and whole ones only."""

import os
import subprocess

import pytest

from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher.containers import ContainerDisk
from oscirc_publisher.disks import RawDisk, open_disk

from .foreign_containers import DISK_BYTES, KIB, MIB, convert, raw_disk

FORMS = [
    ("vmdk", ()),
    ("vmdk", ("-o", "subformat=streamOptimized")),
    ("vdi", ()),
    ("vdi", ("-o", "static=on")),
    ("vhdx", ()),
    ("vhdx", ("-o", "subformat=fixed")),
]


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(("form", "options"), FORMS)
def test_a_container_reads_as_the_disk_inside(tmp_path, form, options, declared):
    raw = raw_disk(tmp_path)
    disk = open_disk(convert(raw, form, *options), form if declared else None)
    assert isinstance(disk, ContainerDisk)
    assert disk.size == DISK_BYTES
    step = 7 * MIB + 512
    assert b"".join(disk.read(at, step) for at in range(0, disk.size, step)) == raw.read_bytes()
    extents = list(disk.extents())
    assert sum(extent.size for extent in extents) <= 9 * MIB  # a vhdx has blocks of 8 MiB
    assert any(extent.start <= 5 * MIB < extent.stop for extent in extents)
    assert extents[-1].stop == disk.size
    disk.check_unchanged()
    disk.close()


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_half_a_download_is_refused_and_not_read_as_zeros(tmp_path, form, options):
    path = convert(raw_disk(tmp_path), form, *options)
    os.truncate(path, path.stat().st_size - min(3 * MIB, path.stat().st_size // 4))
    for declared in (None, form):
        with pytest.raises(DiskRefusedError):
            open_disk(path, declared)


@pytest.mark.parametrize(("form", "size"), [("vmdk", "100G"), ("vdi", "2000G"), ("vhdx", "60T")])
def test_a_huge_disk_that_is_empty_but_for_a_little_costs_a_little(tmp_path, form, size):
    path = tmp_path / f"a.{form}"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, str(path), size], check=True)
    subprocess.run(["qemu-io", "-f", form, "-c", "write -P 5 90G 64k", str(path)], check=True, capture_output=True)
    disk = open_disk(path)
    (extent,) = disk.extents()
    assert extent.start <= 90 << 30 < extent.stop
    assert extent.size <= 64 * MIB
    assert disk.read(90 << 30, 64 * KIB) == b"\x05" * (64 * KIB)
    disk.close()


def test_the_bytes_of_a_flat_vmdk_are_a_raw_disk_and_its_descriptor_is_refused(tmp_path):
    raw = raw_disk(tmp_path)
    descriptor = convert(raw, "vmdk", "-o", "subformat=monolithicFlat")
    for declared in (None, "vmdk"):
        with pytest.raises(DiskRefusedError) as caught:
            open_disk(descriptor, declared)
        assert "-flat.vmdk" in caught.value.hint
    flat = open_disk(tmp_path / "a-flat.vmdk")
    assert isinstance(flat, RawDisk)
    assert flat.read(5 * MIB, MIB) == raw.read_bytes()[5 * MIB : 6 * MIB]
    flat.close()


@pytest.mark.parametrize("form", ["vmdk", "vdi", "vhdx"])
def test_another_format_than_declared_is_refused(tmp_path, form):
    path = convert(raw_disk(tmp_path), "qcow2")
    with pytest.raises(DiskRefusedError, match=f"no {form}"):
        open_disk(path, form)


def test_oslo_refuses_what_our_rules_let_pass(tmp_path, monkeypatch):
    from oscirc_publisher import containers

    path = convert(raw_disk(tmp_path), "vmdk")
    text = path.read_bytes()[512 : 512 + 20 * 512]
    crafted = text.replace(b'SPARSE "a.vmdk"', b'SPARSE "/a.vmd"')
    assert crafted != text
    path.write_bytes(path.read_bytes()[:512] + crafted + path.read_bytes()[512 + len(text) :])
    monkeypatch.setitem(containers.JUDGES, "vmdk", lambda opened: DISK_BYTES)
    with pytest.raises(DiskRefusedError, match="not safe to open"):
        open_disk(path)
