import asyncio
import json
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.errors import DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_vmlaunch import overlays

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)")

SIZE = 8 * 1024 * 1024
DIGEST = "ab" * 32
NAME_OFFSET, SIZE_FIELD, CRYPT, FEATURES, LENGTH = 8, 24, 32, 72, 100


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk,with=comma.raw"
    path.write_bytes(b"\xaa" * SIZE)
    return path


@pytest.fixture
def overlay(tmp_path, disk):
    path = tmp_path / "overlay.qcow2"
    asyncio.run(overlays.create(path, disk, manifest_digest=DIGEST))
    return path


def patch(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_an_overlay_has_the_disks_size_and_is_accepted(overlay, disk, tmp_path):
    overlays.check(overlay, size_bytes=SIZE, manifest_digest=DIGEST)
    info = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", overlay], check=True, capture_output=True).stdout
    )
    assert info["virtual-size"] == SIZE
    assert info["backing-filename"] == str(disk)
    assert info["backing-filename-format"] == "raw"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([overlay.name, disk.name])


def test_a_small_write_takes_nothing_from_the_disk_below(overlay):
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 65536 4096", overlay], check=True, capture_output=True)
    extents = json.loads(
        subprocess.run(["qemu-img", "map", "--output=json", overlay], check=True, capture_output=True).stdout
    )
    assert [(one["start"], one["length"]) for one in extents if one["depth"] == 0] == [(65536, 4096)]


def test_a_disk_of_another_size_is_refused(overlay):
    with pytest.raises(DocumentRefusedError, match="bytes"):
        overlays.check(overlay, size_bytes=SIZE + 512, manifest_digest=DIGEST)


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (0, b"RAW!", "not a qcow2"),
        (4, struct.pack(">I", 2), "version 3"),
        (CRYPT, struct.pack(">I", 1), "encryption"),
        (FEATURES, struct.pack(">Q", 1 << 1), "features"),  # corrupt
        (FEATURES, struct.pack(">Q", 1 << 2), "features"),  # external data file
        (FEATURES, struct.pack(">Q", 1 << 40), "features"),
        (LENGTH, struct.pack(">I", 0), "length"),
        (LENGTH, struct.pack(">I", 0xFFFFFFF8), "length"),
        (NAME_OFFSET, struct.pack(">Q", 1 << 60), "absolute path"),
        (NAME_OFFSET, struct.pack(">QI", 0, 0), "absolute path"),
        (112, struct.pack(">II", 0x44415441, 8), "data file"),
        (112, struct.pack(">II", 0xE2792ACA, 0xFFFFFFF0), "malformed"),
        (120, b"qco", "raw"),
    ],
)
def test_a_crafted_header_is_refused(overlay, offset, data, reason):
    patch(overlay, offset, data)
    with pytest.raises(DocumentRefusedError, match=reason):
        overlays.check(overlay, size_bytes=SIZE, manifest_digest=DIGEST)


@pytest.mark.parametrize("name", [b"json:{", b"nbd://x", b"relative"])
def test_a_backing_name_that_is_no_path_is_refused(overlay, name):
    (offset,) = struct.unpack(">Q", overlay.read_bytes()[NAME_OFFSET : NAME_OFFSET + 8])
    patch(overlay, offset, name)
    with pytest.raises(DocumentRefusedError, match="absolute path"):
        overlays.check(overlay, size_bytes=SIZE, manifest_digest=DIGEST)


@given(st.binary(max_size=600))
def test_no_header_of_any_bytes_is_accepted_or_crashes(data):
    for head in (data, b"QFI\xfb\0\0\0\3" + data):
        assert overlays._fault(head, SIZE, bytes.fromhex(DIGEST))


def test_an_empty_or_missing_overlay_is_refused(tmp_path):
    with pytest.raises(NotFoundError):
        overlays.check(tmp_path / "none", size_bytes=SIZE, manifest_digest=DIGEST)
    (tmp_path / "empty").touch()
    with pytest.raises(DocumentRefusedError):
        overlays.check(tmp_path / "empty", size_bytes=SIZE, manifest_digest=DIGEST)


def test_what_cannot_be_a_disk_is_refused_and_leaves_nothing(tmp_path):
    odd = tmp_path / "odd.raw"
    odd.write_bytes(b"x" * 513)
    with pytest.raises(UsageError, match="sectors"):
        asyncio.run(overlays.create(tmp_path / "overlay", odd, manifest_digest=DIGEST))
    with pytest.raises(UsageError, match="absolute"):
        asyncio.run(overlays.create(tmp_path / "overlay", Path("disk.raw"), manifest_digest=DIGEST))
    with pytest.raises(LocalError, match="cannot be read"):
        asyncio.run(overlays.create(tmp_path / "overlay", odd / "below", manifest_digest=DIGEST))
    with pytest.raises(NotFoundError, match="no disk at"):
        asyncio.run(overlays.create(tmp_path / "overlay", tmp_path / "none", manifest_digest=DIGEST))
    assert list(tmp_path.iterdir()) == [odd]


def test_an_overlay_states_the_disk_it_was_made_on_and_is_refused_on_another(overlay):
    with pytest.raises(DocumentRefusedError, match=f"made on sha256:{DIGEST}, not on sha256:{'cd' * 32}"):
        overlays.check(overlay, size_bytes=SIZE, manifest_digest="cd" * 32)
    write(overlay, "write -P 1 0 1M")
    subprocess.run(["qemu-img", "check", "-q", overlay], check=True)
    subprocess.run(["qemu-img", "rebase", "-q", "-u", "-F", "raw", "-b", "/elsewhere/disk.raw", overlay], check=True)
    with pytest.raises(DocumentRefusedError, match="made on"):  # QEMU wrote the header anew and kept it
        overlays.check(overlay, size_bytes=SIZE, manifest_digest="cd" * 32)
    overlays.check(overlay, size_bytes=SIZE, manifest_digest=DIGEST)


def test_an_overlay_of_an_older_version_that_states_no_disk_is_accepted(tmp_path, disk):
    old = tmp_path / "old.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, old, str(SIZE)]
    subprocess.run(command, check=True)
    overlays.check(old, size_bytes=SIZE, manifest_digest="cd" * 32)


def write(path, *commands):
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, capture_output=True)


def test_whether_an_overlay_holds_anything_is_known(overlay, tmp_path):
    assert not overlays.is_written(tmp_path / "none")
    assert not overlays.is_written(overlay)
    write(overlay, "read 0 1M")
    assert not overlays.is_written(overlay)
    write(overlay, "write -P 1 4M 512")
    assert overlays.is_written(overlay)


@given(st.binary(max_size=300))
def test_what_is_no_overlay_counts_as_written(data):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "odd"
        path.write_bytes(data)
        assert overlays.is_written(path)


def test_a_data_disk_is_empty_of_its_size_and_stands_on_nothing(tmp_path, overlay):
    path = tmp_path / "data.qcow2"
    asyncio.run(overlays.create_data_disk(path, SIZE))
    overlays.check_data_disk(path, size_bytes=SIZE)
    assert path.stat().st_blocks * 512 < SIZE // 4
    with pytest.raises(DocumentRefusedError, match="bytes"):
        overlays.check_data_disk(path, size_bytes=2 * SIZE)
    with pytest.raises(DocumentRefusedError, match="names another file"):
        overlays.check_data_disk(overlay, size_bytes=SIZE)
    with pytest.raises(NotFoundError, match="no data disk"):
        overlays.check_data_disk(tmp_path / "none", size_bytes=SIZE)
    patch(path, 112, struct.pack(">II", 0x44415441, 8))
    with pytest.raises(DocumentRefusedError, match="names another file"):
        overlays.check_data_disk(path, size_bytes=SIZE)


def test_another_image_below_is_refused():
    overlays.check_base(instance="one", recorded_digest="aa", offered_digest="aa")
    with pytest.raises(UsageError, match="made on version sha256:aa") as refusal:
        overlays.check_base(instance="one", recorded_digest="aa", offered_digest="bb")
    assert refusal.value.hint
