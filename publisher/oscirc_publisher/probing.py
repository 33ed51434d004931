"""Finds out what a disk file is when its format was not declared, and refuses to guess.

Every inspector of oslo.utils judges the first mebibytes. Exactly one reading may come out: a plain disk (partition
table, boot sector, hybrid ISO: all of them raw) or a qcow2. Two readings are how one file shows different disks to
different programs, and are refused; so is every format that is known and not supported.
"""

from __future__ import annotations

import io
from typing import Literal

from oscirc_blockstore.errors import DiskRefusedError, MissingProgramError
from oscirc_publisher.opened_file import OpenedFile

_PROBED_BYTES = 4 << 20
_CHUNK_BYTES = 64 << 10
_FOOTER_BYTES = 512
_RAW_KINDS = frozenset({"raw", "gpt", "iso"})  # content of a disk, not containers around one


def detect(opened: OpenedFile) -> Literal["raw", "qcow2"]:
    """The one supported format that the content can be read as, or `DiskRefusedError`."""
    kinds = _kinds(opened.read(0, _PROBED_BYTES))
    if opened.read(max(0, opened.size - _FOOTER_BYTES), _FOOTER_BYTES).startswith(b"conectix"):
        kinds.add("vhd")  # a fixed VHD has its header at the end
    containers = kinds - _RAW_KINDS
    if not containers:
        return "raw"
    if kinds == {"qcow2"}:
        return "qcow2"
    shown = " and ".join(sorted(kinds))
    if len(kinds) > 1:
        raise DiskRefusedError(
            f"{opened.path} can be read as {shown}: its format must be declared",
            hint="say --format raw if its bytes are the disk, --format qcow2 if it is such a container",
        )
    raise DiskRefusedError(
        f"{opened.path} looks like {shown}, which is not supported",
        hint="supported: raw, qcow2. Convert it with qemu-img convert, or say --format raw if its bytes are the disk",
    )


def _kinds(head: bytes) -> set[str]:
    try:
        from oslo_utils.imageutils import format_inspector  # noqa: PLC0415  # an extra, and 0.1 s to import
    except ImportError:
        raise MissingProgramError(
            "the format of a disk can only be detected with oslo.utils, which is not installed",
            hint="declare it with --format raw or --format qcow2, or install oscirc[import]",
        ) from None
    wrapper = format_inspector.InspectWrapper(io.BytesIO(head))
    while wrapper.read(_CHUNK_BYTES):
        pass
    wrapper.close()
    return {str(inspector) for inspector in wrapper.formats or ()}
