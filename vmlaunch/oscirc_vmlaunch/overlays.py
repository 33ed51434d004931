"""Overlays: an instance's private qcow2 on a mounted image.

An overlay only means something on the very disk it was made on. What binds the two is the manifest digest that the
instance records; the path in the qcow2 header is decoration (QEMU is given the backing node explicitly), so a mount
may move. The header is parsed here before QEMU opens the file, because it can name other files to open:

- qcow2, version 3, and none of: a corrupt mark, an external data file, encryption, an unknown incompatible feature;
- exactly the size of the disk below;
- a backing file stated as format `raw` and by an absolute path, as `create` writes it.

Layout: QEMU's docs/interop/qcow2.txt. Overlays have 128 KiB clusters with 4 KiB subclusters (extended L2 entries):
a guest's 4 KiB write then needs no read of the image below, where a plain overlay would fetch the rest of a cluster.
"""

from __future__ import annotations

import struct
from pathlib import Path

from oscirc_blockstore.errors import DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_vmlaunch import programs

_DEADLINE_S = 30.0
_SECTOR_BYTES = 512

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")  # to header_length: 104 bytes
_MAGIC, _VERSION = b"QFI\xfb", 3
_READ_BYTES = 4096
_BACKING_NAME_LIMIT_BYTES = 1023
_EXTENSION = struct.Struct(">II")
_EXTENSION_END, _EXTENSION_BACKING_FORMAT, _EXTENSION_DATA_FILE = 0, 0xE2792ACA, 0x44415441
_DIRTY, _COMPRESSION_TYPE, _EXTENDED_L2 = 1 << 0, 1 << 3, 1 << 4  # the incompatible features that are harmless


def disk_size(disk: Path) -> int:
    """The size in bytes of a mounted raw disk; refuses what QEMU could not present to a guest unchanged."""
    if not disk.is_absolute():
        raise UsageError(f"the disk's path {disk} is not absolute")
    try:
        size = disk.stat().st_size
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no disk at {disk}", hint="is the image still mounted?") from error
    except OSError as error:
        raise LocalError(f"{disk} cannot be read: {error.strerror}", hint="mount the image again") from error
    if size == 0 or size % _SECTOR_BYTES:
        raise UsageError(f"{disk} has {size} bytes: a disk is a whole number of {_SECTOR_BYTES}-byte sectors")
    return size


async def create(overlay: Path, disk: Path) -> None:
    """Make an empty overlay of the size of `disk`; it appears whole or not at all. Reads nothing of the disk."""
    size = disk_size(disk)
    temporary = overlay.with_name(f".{overlay.name}.new")
    try:
        await programs.run_checked(
            [
                *(str(programs.find_qemu_img()), "create", "-q", "-f", "qcow2"),
                *("-F", "raw", "-b", str(disk)),
                *("-o", "cluster_size=128k,extended_l2=on,lazy_refcounts=off"),
                *(str(temporary), str(size)),
            ],
            deadline_s=_DEADLINE_S,
        )
        check(temporary, size_bytes=size)
        temporary.rename(overlay)
    finally:
        temporary.unlink(missing_ok=True)


def check(overlay: Path, *, size_bytes: int) -> None:
    """Refuse an overlay that is not of the form `create` makes, or not of this size."""
    try:
        with overlay.open("rb") as file:
            data = file.read(_READ_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no overlay at {overlay}") from error
    reason = _fault(data, size_bytes)
    if reason:
        raise DocumentRefusedError(
            f"the overlay {overlay} cannot be used: {reason}",
            hint="if what it holds is not needed, remove the instance and boot the image again",
        )


def check_base(*, instance: str, recorded_digest: str, offered_digest: str) -> None:
    """Refuse to put an instance's overlay on another image than the one it was made on."""
    if recorded_digest != offered_digest:
        raise UsageError(
            f"instance {instance} was made on version sha256:{recorded_digest}, not on sha256:{offered_digest}:"
            " its overlay means nothing there",
            hint="boot the version it was made on, or make a new instance of the other one",
        )


def _fault(data: bytes, size_bytes: int) -> str:
    """What is wrong with a header, in words; empty when nothing is."""
    if len(data) < _HEADER.size:
        return "it is too short for a qcow2 header"
    magic, version, name_offset, name_size, _, size, crypt, *_, features, _, _, _, length = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        return "it is not a qcow2 file of version 3"
    if features & ~(_DIRTY | _COMPRESSION_TYPE | _EXTENDED_L2) or crypt:
        return f"its header asks for what no overlay of ours has (features {features:#x}, encryption {crypt})"
    if size != size_bytes:
        return f"it is of {size} bytes and the disk of {size_bytes}"
    if not _HEADER.size <= length <= len(data) or length % 8:
        return "its header has an impossible length"
    return _backing_fault(data, _extensions(data, length), name_offset, name_size)


def _backing_fault(data: bytes, extensions: dict[int, bytes] | None, name_offset: int, name_size: int) -> str:
    if extensions is None or _EXTENSION_DATA_FILE in extensions:
        return "its header extensions are malformed or name an external data file"
    if extensions.get(_EXTENSION_BACKING_FORMAT) != b"raw":
        return "it does not state that the disk below is raw"
    name = data[name_offset : name_offset + name_size]
    if name_size > _BACKING_NAME_LIMIT_BYTES or len(name) != name_size or not name.startswith(b"/"):
        return "it does not name the disk below by an absolute path"
    return ""


def _extensions(data: bytes, offset: int) -> dict[int, bytes] | None:
    found: dict[int, bytes] = {}
    while offset + _EXTENSION.size <= len(data):
        kind, size = _EXTENSION.unpack_from(data, offset)
        offset += _EXTENSION.size
        if kind == _EXTENSION_END:
            return found
        if kind in found or offset + size > len(data):
            return None
        found[kind] = data[offset : offset + size]
        offset += (size + 7) // 8 * 8
    return None
