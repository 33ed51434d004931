"""Containers of other programs' formats, made by qemu-img, and bytes of theirs that a test may change."""

import struct
import subprocess

from .conftest import KIB, MIB, mixed_bytes

DISK_BYTES = 64 * MIB + 512


def raw_disk(directory):
    """A sparse disk with some data in its midst and in its last sector."""
    path = directory / "a.raw"
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.seek(5 * MIB)
        file.write(mixed_bytes(3 * MIB))
        file.seek(64 * MIB)
        file.write(b"end!" * 128)
    return path


def convert(raw, form, *options):
    path = raw.with_suffix(f".{form}")
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", form, *options, str(raw), str(path)], check=True)
    return path


def patch(path, at, raw):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(raw)
    return path


def number(path, at, form):
    raw = path.read_bytes()
    return struct.unpack_from(form, raw, at)[0]


__all__ = ["DISK_BYTES", "KIB", "MIB", "convert", "number", "patch", "raw_disk"]
