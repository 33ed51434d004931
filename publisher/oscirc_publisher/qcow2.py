"""Judges the header of a qcow2 container before QEMU opens it. Bytes in, a size out; nothing else is read.

Refused: a backing file or an external data file (the container would name another file to read), encryption,
features that this version does not know, a container marked dirty or corrupt, and tables that cannot be: larger than
QEMU allows, smaller than the disk needs, or outside the file. Internal snapshots are allowed: what is published is
the current state, and the snapshots are not.

Source: docs/interop/qcow2.rst of QEMU. All numbers are big endian.
"""

from __future__ import annotations

import struct

from oscirc_blockstore.errors import DiskRefusedError

MAGIC = b"QFI\xfb"
HEADER_BYTES = 64 << 10  # what `check_header` wants to see of the file; extensions end within the first cluster

_VERSION_2 = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION_3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION_TYPE, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION_TYPE | _EXTENDED_L2

_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77

_MIN_CLUSTER_BITS, _MAX_CLUSTER_BITS = 9, 21
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65_536
_MAX_REFCOUNT_ORDER = 6
_MAX_EXTENSIONS = 100


def check_header(head: bytes, file_size: int) -> int:
    """The virtual size in bytes that a sound header states, or `DiskRefusedError` naming what is wrong with it."""
    if len(head) < _VERSION_2.size or head[:4] != MAGIC:
        raise DiskRefusedError("this is no qcow2 container")
    (
        _,
        version,
        backing_offset,
        _backing_size,
        cluster_bits,
        size,
        encryption,
        l1_entries,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshots,
        _snapshots_offset,
    ) = _VERSION_2.unpack_from(head)
    if version not in (2, 3):
        raise DiskRefusedError(f"qcow2 version {version} is not supported")
    if not _MIN_CLUSTER_BITS <= cluster_bits <= _MAX_CLUSTER_BITS:
        raise DiskRefusedError(f"the qcow2 header states clusters of 2^{min(cluster_bits, 999)} bytes")
    if backing_offset:
        raise DiskRefusedError(
            "the qcow2 has a backing file", hint="flatten it first: qemu-img convert -O qcow2 OLD NEW"
        )
    if encryption:
        raise DiskRefusedError("the qcow2 is encrypted", hint="published images are readable by everybody: decrypt it")
    cluster_size = 1 << cluster_bits
    features, header_length = 0, _VERSION_2.size
    if version > 2:  # noqa: PLR2004
        features, header_length = _check_version_3(head, cluster_size)
    _check_extensions(head[:cluster_size], header_length)
    l2_entries = cluster_size // (16 if features & _EXTENDED_L2 else 8)
    _check_l1(size, l1_entries, l1_offset, cluster_size * l2_entries)
    _check_place("L1 table", l1_offset, l1_entries * 8, cluster_size, file_size)
    if refcount_clusters * cluster_size > _MAX_REFCOUNT_TABLE_BYTES:
        raise DiskRefusedError("the qcow2 header states an impossibly large refcount table")
    _check_place("refcount table", refcount_offset, refcount_clusters * cluster_size, cluster_size, file_size)
    if snapshots > _MAX_SNAPSHOTS:
        raise DiskRefusedError(f"the qcow2 header states {snapshots} snapshots")
    return int(size)


def _check_version_3(head: bytes, cluster_size: int) -> tuple[int, int]:
    """(incompatible features, header length)."""
    if len(head) < _VERSION_2.size + _VERSION_3.size:
        raise DiskRefusedError("the qcow2 header is cut off")
    features, _, _, refcount_order, header_length = _VERSION_3.unpack_from(head, _VERSION_2.size)
    if features & _DATA_FILE:
        raise DiskRefusedError("the qcow2 keeps its data in another file", hint="convert it: qemu-img convert -O qcow2")
    if features & ~_KNOWN_FEATURES:
        raise DiskRefusedError(f"the qcow2 asks for unknown features ({features & ~_KNOWN_FEATURES:#x})")
    if features & (_DIRTY | _CORRUPT):
        raise DiskRefusedError(
            "the qcow2 is marked as damaged or still in use",
            hint="stop the guest that uses it, then: qemu-img check -r all FILE",
        )
    if refcount_order > _MAX_REFCOUNT_ORDER:
        raise DiskRefusedError("the qcow2 header states impossible refcounts")
    if not _VERSION_2.size + _VERSION_3.size <= header_length <= min(cluster_size, len(head)):
        raise DiskRefusedError(f"the qcow2 header states a length of {header_length} bytes")
    compression = head[104] if header_length > 104 else 0  # noqa: PLR2004
    if compression not in (0, 1) or bool(compression) != bool(features & _COMPRESSION_TYPE):
        raise DiskRefusedError(f"the qcow2 asks for unknown compression ({compression})")
    return features, header_length


def _check_extensions(first_cluster: bytes, offset: int) -> None:
    for _ in range(_MAX_EXTENSIONS):
        if offset + _EXTENSION.size > len(first_cluster):
            return
        kind, length = _EXTENSION.unpack_from(first_cluster, offset)
        if kind == 0:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise DiskRefusedError("the qcow2 names an external data file")
        if kind == _EXTENSION_ENCRYPTION:
            raise DiskRefusedError("the qcow2 is encrypted")
        offset += _EXTENSION.size + -(-length // 8) * 8
        if offset > len(first_cluster):
            raise DiskRefusedError("a qcow2 header extension reaches past its cluster")
    raise DiskRefusedError("the qcow2 header has too many extensions")


def _check_l1(size: int, entries: int, offset: int, covered_by_entry: int) -> None:
    if entries * 8 > _MAX_L1_BYTES:
        raise DiskRefusedError("the qcow2 header states an impossibly large L1 table")
    if entries < -(-size // covered_by_entry):
        raise DiskRefusedError("the qcow2 header states an L1 table too small for the disk")
    if entries and not offset:
        raise DiskRefusedError("the qcow2 header states no place for the L1 table")


def _check_place(what: str, offset: int, length: int, cluster_size: int, file_size: int) -> None:
    if offset % cluster_size or offset + length > -(-file_size // cluster_size) * cluster_size:
        raise DiskRefusedError(f"the qcow2 header puts the {what} outside the file")
