"""Overlays: an instance's private qcow2 on a mounted image.

An overlay only means something on the very disk it was made on. What binds the two is the manifest digest that the
instance records and that the overlay itself states, in a header extension of our own (QEMU keeps those it does not
know); the path in the qcow2 header is decoration (QEMU is given the backing node explicitly), so a mount may move. The
header is parsed here before QEMU opens the file, because it can name other files to open:

- qcow2, version 3, and none of: a corrupt mark, an external data file, encryption, an unknown incompatible feature;
- exactly the size of the disk below, and made on that very disk (overlays of older versions of oscirc do not state it);
- a backing file stated as format `raw` and by an absolute path, as `create` writes it.

A data disk is a qcow2 of its own, with nothing below it.

Layout: QEMU's docs/interop/qcow2.txt. Overlays have 128 KiB clusters with 4 KiB subclusters (extended L2 entries):
a guest's 4 KiB write then needs no read of the image below, where a plain overlay would fetch the rest of a cluster.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from oscirc_blockstore.errors import DocumentRefusedError, LocalError, NotFoundError, UsageError
from oscirc_vmlaunch import programs

_DEADLINE_S = 30.0
_SECTOR_BYTES = 512

_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")  # to header_length: 104 bytes
_MAGIC, _VERSION = b"QFI\xfb", 3
_READ_BYTES = 4096
_NAME_OFFSET_AT = 8
_L1_LIMIT = 4 << 20  # entries; with clusters of 128 KiB far more than any disk has
_BACKING_NAME_LIMIT_BYTES = 1023
_EXTENSION = struct.Struct(">II")
_EXTENSION_END, _EXTENSION_BACKING_FORMAT, _EXTENSION_DATA_FILE = 0, 0xE2792ACA, 0x44415441
_EXTENSION_BASE = 0x6F736362  # ours: the 32 bytes of the manifest digest
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


async def create(overlay: Path, disk: Path, *, manifest_digest: str) -> None:
    """Make an empty overlay of the size of `disk`, the disk of this manifest (hex). Reads nothing of the disk.

    It appears whole or not at all.
    """
    size = disk_size(disk)
    options = ["-F", "raw", "-b", str(disk), "-o", "cluster_size=128k,extended_l2=on,lazy_refcounts=off"]
    async with _appearing(overlay, size, options) as temporary:
        _state_base(temporary, bytes.fromhex(manifest_digest))
        check(temporary, size_bytes=size, manifest_digest=manifest_digest)


async def create_data_disk(path: Path, size_bytes: int) -> None:
    """Make an empty data disk; it appears whole or not at all."""
    async with _appearing(path, size_bytes, ["-o", "lazy_refcounts=off"]) as temporary:
        check_data_disk(temporary, size_bytes=size_bytes)


@contextlib.asynccontextmanager
async def _appearing(path: Path, size_bytes: int, options: Sequence[str]) -> AsyncIterator[Path]:
    """A new qcow2 file under another name, which gets its own when the block ends well."""
    temporary = path.with_name(f".{path.name}.new")
    program = str(programs.find_qemu_img())
    try:
        await programs.run_checked(
            [program, "create", "-q", "-f", "qcow2", *options, str(temporary), str(size_bytes)], deadline_s=_DEADLINE_S
        )
        yield temporary
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def check(overlay: Path, *, size_bytes: int, manifest_digest: str) -> None:
    """Refuse an overlay that is not of the form `create` makes, not of this size, or made on another disk."""
    reason = _fault(_head(overlay, "overlay"), size_bytes, bytes.fromhex(manifest_digest))
    if reason:
        raise DocumentRefusedError(
            f"the overlay {overlay} cannot be used: {reason}",
            hint="if what it holds is not needed, remove the instance and boot the image again",
        )


def check_data_disk(path: Path, *, size_bytes: int) -> None:
    """Refuse a data disk that is not of the form `create_data_disk` makes, or not of this size."""
    data = _head(path, "data disk")
    reason = _form_fault(data, size_bytes)
    if not reason:
        extensions = _extensions(data, _HEADER.unpack_from(data)[-1])
        if any(_HEADER.unpack_from(data)[2:4]) or extensions is None or _EXTENSION_DATA_FILE in extensions:
            reason = "its header names another file"
    if reason:
        raise DocumentRefusedError(f"the data disk {path} cannot be used: {reason}", hint="put the right file back")


def is_written(overlay: Path) -> bool:
    """Whether an overlay holds anything, as far as its first-level table tells; what is not clear counts as written."""
    try:
        with overlay.open("rb") as file:
            header = _HEADER.unpack(file.read(_HEADER.size))
            entries, offset, snapshots = header[7], header[8], header[11]
            if header[0] != _MAGIC or snapshots or entries > _L1_LIMIT:
                return True
            file.seek(offset)
            table = file.read(8 * entries)
            return len(table) != 8 * entries or any(table)
    except FileNotFoundError:
        return False
    except (struct.error, OSError, ValueError):
        return True


def _head(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {what} at {path}") from error


def _state_base(overlay: Path, digest: bytes) -> None:
    """Put the digest among the extensions of a header that was just made; the backing file's name moves behind."""
    data = _head(overlay, "overlay")
    _, _, name_offset, name_size, *_, length = _HEADER.unpack_from(data)
    extensions = _extensions(data, length) or {}
    name = data[name_offset : name_offset + name_size]
    head = bytearray(data[:length])
    for kind, content in (*extensions.items(), (_EXTENSION_BASE, digest), (_EXTENSION_END, b"")):
        head += _EXTENSION.pack(kind, len(content)) + content + bytes(-len(content) % 8)
    struct.pack_into(">Q", head, _NAME_OFFSET_AT, len(head))
    if len(head) + len(name) > _READ_BYTES:
        raise LocalError(f"the path of {overlay} is too long for its header")
    with overlay.open("r+b") as file:
        file.write(bytes(head) + name)


def check_base(*, instance: str, recorded_digest: str, offered_digest: str) -> None:
    """Refuse to put an instance's overlay on another image than the one it was made on."""
    if recorded_digest != offered_digest:
        raise UsageError(
            f"instance {instance} was made on version sha256:{recorded_digest}, not on sha256:{offered_digest}:"
            " its overlay means nothing there",
            hint=f"move it with: oscirc update {instance}; or make a new instance of the other version",
        )


def _fault(data: bytes, size_bytes: int, digest: bytes) -> str:
    """What is wrong with an overlay's header, in words; empty when nothing is."""
    reason = _form_fault(data, size_bytes)
    if reason:
        return reason
    _, _, name_offset, name_size, *_, length = _HEADER.unpack_from(data)
    return _backing_fault(data, _extensions(data, length), name_offset, name_size, digest)


def _form_fault(data: bytes, size_bytes: int) -> str:
    """The same for what overlays and data disks have in common."""
    if len(data) < _HEADER.size:
        return "it is too short for a qcow2 header"
    magic, version, _, _, _, size, crypt, *_, features, _, _, _, length = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        return "it is not a qcow2 file of version 3"
    if features & ~(_DIRTY | _COMPRESSION_TYPE | _EXTENDED_L2) or crypt:
        return f"its header asks for what no overlay of ours has (features {features:#x}, encryption {crypt})"
    if size != size_bytes:
        return f"it is of {size} bytes and the disk of {size_bytes}"
    if not _HEADER.size <= length <= len(data) or length % 8:
        return "its header has an impossible length"
    return ""


def _backing_fault(
    data: bytes, extensions: dict[int, bytes] | None, name_offset: int, name_size: int, digest: bytes
) -> str:
    if extensions is None or _EXTENSION_DATA_FILE in extensions:
        return "its header extensions are malformed or name an external data file"
    if extensions.get(_EXTENSION_BACKING_FORMAT) != b"raw":
        return "it does not state that the disk below is raw"
    stated = extensions.get(_EXTENSION_BASE, digest)
    if stated != digest:
        return f"it was made on sha256:{stated[:32].hex()}, not on sha256:{digest.hex()}"
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
