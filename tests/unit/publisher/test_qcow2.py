import struct
import subprocess

import pytest

from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher.qcow2 import HEADER_BYTES, check_header

from .conftest import MIB


def create(path, *options, size="64M"):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True)
    return path


def judged(path):
    raw = path.read_bytes()
    return check_header(raw[:HEADER_BYTES], len(raw))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return create(tmp_path_factory.mktemp("sound") / "sound.qcow2").read_bytes()


def patched(raw, offset, form, value):
    out = bytearray(raw)
    struct.pack_into(form, out, offset, value)
    return bytes(out)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "compression_type=zstd"),
        ("-o", "extended_l2=on"),
        ("-o", "lazy_refcounts=on"),
        ("-o", "refcount_bits=1"),
        ("-o", "preallocation=metadata"),
    ],
)
def test_what_qemu_img_makes_is_sound(tmp_path, options):
    assert judged(create(tmp_path / "a.qcow2", *options)) == 64 * MIB


def test_internal_snapshots_are_allowed(tmp_path):
    path = create(tmp_path / "a.qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(path)], check=True)
    assert judged(path) == 64 * MIB


def test_a_backing_file_is_refused(tmp_path):
    create(tmp_path / "base.qcow2")
    path = create(tmp_path / "a.qcow2", "-b", str(tmp_path / "base.qcow2"), "-F", "qcow2")
    with pytest.raises(DiskRefusedError, match="backing file") as caught:
        judged(path)
    assert "qemu-img convert" in caught.value.hint


def test_an_external_data_file_is_refused(tmp_path):
    path = create(tmp_path / "a.qcow2", "-o", f"data_file={tmp_path / 'data.raw'}")
    with pytest.raises(DiskRefusedError, match="another file"):
        judged(path)


def test_encryption_is_refused(tmp_path):
    options = ("--object", "secret,id=s,data=secret", "-o", "encrypt.format=aes,encrypt.key-secret=s")
    with pytest.raises(DiskRefusedError, match="encrypted"):
        judged(create(tmp_path / "a.qcow2", *options))


def test_encryption_by_luks_is_refused(tmp_path):
    # made by hand: qemu-img makes a LUKS header only where it can time the processor
    raw = patched(create(tmp_path / "a.qcow2").read_bytes(), 32, ">I", 2)
    with pytest.raises(DiskRefusedError, match="encrypted"):
        check_header(raw[:HEADER_BYTES], len(raw))


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (0, ">4s", b"QFI\xfa", "no qcow2"),
        (4, ">I", 1, "version 1"),
        (4, ">I", 4, "version 4"),
        (8, ">Q", 512, "backing file"),
        (20, ">I", 8, "clusters"),
        (20, ">I", 22, "clusters"),
        (20, ">I", 0xFFFFFFFF, "clusters"),
        (32, ">I", 1, "encrypted"),
        (32, ">I", 99, "encrypted"),
        (24, ">Q", 1 << 62, "too small"),
        (36, ">I", 0xFFFFFFFF, "large L1"),
        (36, ">I", 0, "too small"),
        (40, ">Q", 0, "no place"),
        (40, ">Q", 512, "outside"),
        (40, ">Q", 1 << 40, "outside"),
        (40, ">Q", (1 << 64) - 65536, "outside"),
        (48, ">Q", 1 << 50, "outside"),
        (56, ">I", 0x7FFFFFFF, "large refcount"),
        (60, ">I", 0xFFFFFFFF, "snapshots"),
        (72, ">Q", 1, "damaged"),
        (72, ">Q", 2, "damaged"),
        (72, ">Q", 4, "another file"),
        (72, ">Q", 1 << 5, "unknown features"),
        (72, ">Q", 1 << 63, "unknown features"),
        (72, ">Q", 8, "compression"),
        (96, ">I", 7, "refcounts"),
        (100, ">I", 20, "length"),
        (100, ">I", 1 << 20, "length"),
        (104, ">B", 1, "compression"),
        (104, ">B", 2, "compression"),
        (112, ">I", 0x44415441, "external data file"),
        (112, ">I", 0x0537BE77, "encrypted"),
        (116, ">I", 0xFFFFFFF0, "past its cluster"),
    ],
)
def test_a_crafted_header_is_refused(sound, offset, form, value, words):
    check_header(sound[:HEADER_BYTES], len(sound))
    with pytest.raises(DiskRefusedError, match=words):
        check_header(patched(sound, offset, form, value)[:HEADER_BYTES], len(sound))


@pytest.mark.parametrize("length", [0, 3, 71, 72, 103])
def test_a_header_that_is_cut_off_is_refused(sound, length):
    with pytest.raises(DiskRefusedError):
        check_header(sound[:length], length)


def test_endless_extensions_are_refused(sound):
    head = bytearray(sound[:HEADER_BYTES])
    for at in range(112, 112 + 8 * 200, 8):
        struct.pack_into(">II", head, at, 0x12345678, 0)
    with pytest.raises(DiskRefusedError, match="too many"):
        check_header(bytes(head), len(sound))
