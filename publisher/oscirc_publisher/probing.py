"""Finds out what a disk file is when its format was not declared, and refuses to guess.

Every inspector of oslo.utils judges the first mebibytes and the last sectors. Exactly one reading may come out: a plain
disk (partition table, boot sector, hybrid ISO: all of them raw) or one container that is supported and that its
inspector finds safe. Two readings are how one file shows different disks to different programs, and are refused; so is
every format that is known and not supported.
"""

from __future__ import annotations

import io
from typing import Any, Literal

from oscirc_blockstore.errors import DiskRefusedError, MissingProgramError
from oscirc_publisher.containers import CONTAINER_FORMATS, JUDGES, ContainerFormat
from oscirc_publisher.opened_file import OpenedFile

_PROBED_BYTES = 4 << 20
_CHUNK_BYTES = 64 << 10
_FOOTER_BYTES = 1536  # of a vmdk stream; a fixed VHD's has 512
_SECTOR = 512
_DESCRIPTOR = b"# disk descriptorfile"
_RAW_KINDS = frozenset({"raw", "gpt", "iso"})  # content of a disk, not containers around one
_SUPPORTED = ", ".join(("raw", *CONTAINER_FORMATS))


def detect(opened: OpenedFile) -> Literal["raw"] | ContainerFormat:
    """The one supported format that the content can be read as, or `DiskRefusedError`."""
    tail = opened.read(max(0, opened.size - _FOOTER_BYTES), _FOOTER_BYTES)
    head = opened.read(0, _PROBED_BYTES)
    inspectors = _inspectors(head + (tail if opened.size > _PROBED_BYTES else b""))
    kinds = set(inspectors)
    if head.lower().startswith(_DESCRIPTOR):
        kinds = kinds - {"raw"} | {"vmdk"}  # one that only names other files, and is too short for its inspector
    if tail[-_SECTOR:].startswith(b"conectix"):
        kinds.add("vhd")  # a fixed VHD has its header at the end
    containers = kinds - _RAW_KINDS
    if not containers:
        return "raw"
    shown = " and ".join(sorted(kinds))
    if len(kinds) > 1:
        raise DiskRefusedError(
            f"{opened.path} can be read as {shown}: its format must be declared",
            hint=f"say --format raw if its bytes are the disk, else --format with what it is: {_SUPPORTED}",
        )
    for form in CONTAINER_FORMATS:
        if kinds == {form}:
            if form in inspectors and form != "qcow2":  # of that it knows fewer features than QEMU and our rules do
                _check_safe(opened, form, inspectors[form])
            return form
    raise DiskRefusedError(
        f"{opened.path} looks like {shown}, which is not supported",
        hint=f"supported: {_SUPPORTED}. Use qemu-img convert, or say --format raw if its bytes are the disk",
    )


def _inspectors(content: bytes) -> dict[str, Any]:
    """The inspectors of oslo.utils that recognise the content, by the name of their format."""
    try:
        from oslo_utils.imageutils import format_inspector  # noqa: PLC0415  # an extra, and 0.1 s to import
    except ImportError:
        raise MissingProgramError(
            "the format of a disk can only be detected with oslo.utils, which is not installed",
            hint="declare it with --format raw or --format qcow2, or install oscirc[import]",
        ) from None
    wrapper = format_inspector.InspectWrapper(io.BytesIO(content))
    while wrapper.read(_CHUNK_BYTES):
        pass
    wrapper.close()
    return {str(inspector): inspector for inspector in wrapper.formats or ()}


def _check_safe(opened: OpenedFile, form: ContainerFormat, inspector: Any) -> None:
    """A second opinion beside our own rules; where these refuse, too, they say better what is wrong and what to do."""
    from oslo_utils.imageutils import format_inspector  # noqa: PLC0415  # as above

    try:
        inspector.safety_check()
    except format_inspector.ImageFormatError:
        return  # it saw too little of the file to judge: our own rules look where they must
    except format_inspector.SafetyCheckFailed as error:
        JUDGES[form](opened)
        reasons = "; ".join(str(reason) for reason in error.failures.values())
        raise DiskRefusedError(f"{opened.path} is a {form} that is not safe to open: {reasons[:300]}") from None
