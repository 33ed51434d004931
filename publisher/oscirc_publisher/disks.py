"""Opens what is published: a raw disk file, a block device, or a container (qcow2, vmdk, vdi, vhdx).

- The format is declared by the caller, or detected from the content when there is exactly one reading of it
  (`probing`). A raw disk that merely begins like a container must be declared raw: guessing would let a guest that
  writes a header into its own disk decide what its publisher reads.
- The file is opened once. Everything, QEMU included, reads that open file and never its name again.
- A disk is a whole number of 512-byte sectors: anything else is a truncated file, and refused.
- What changes while it is read would be a disk that never existed: `check_unchanged` tells.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

from oscirc_blockstore.disk_source import ByteRange, DiskSource
from oscirc_blockstore.errors import DiskRefusedError, LocalError
from oscirc_publisher import probing
from oscirc_publisher.containers import CONTAINER_FORMATS, ContainerDisk, ContainerFormat
from oscirc_publisher.opened_file import OpenedFile, check_disk_size

DiskFormat = Literal["raw"] | ContainerFormat
FORMATS: tuple[DiskFormat, ...] = ("raw", *CONTAINER_FORMATS)


class FileDisk(DiskSource, Protocol):
    """A disk that stands in a file; to be closed by whoever opened it."""

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` when the file is not what it was at opening."""


def open_disk(path: Path, declared_format: DiskFormat | None = None) -> FileDisk:
    """The disk in `path`; `declared_format` None detects it.

    Raises `DiskRefusedError` for what must not be published, `NotFoundError`, and `LocalError` for what this machine
    cannot read.
    """
    if declared_format is not None and declared_format not in FORMATS:
        raise DiskRefusedError(
            f"the disk format {declared_format!r} is not supported", hint=f"supported: {', '.join(FORMATS)}"
        )
    opened = OpenedFile(path)
    try:
        found = declared_format or probing.detect(opened)
        return RawDisk(opened) if found == "raw" else ContainerDisk(opened, found)
    except BaseException:
        opened.close()
        raise


class RawDisk:
    """A file whose bytes are the disk's. Holes of the file are holes of the disk."""

    def __init__(self, opened: OpenedFile) -> None:
        self._file = opened
        self._size = check_disk_size(opened.size, str(opened.path))

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    def extents(self) -> Iterator[ByteRange]:
        """What `SEEK_DATA` and `SEEK_HOLE` report; the whole disk where the file system cannot tell."""
        descriptor, stop = self._file.descriptor, 0
        while stop < self._size:
            try:
                start = os.lseek(descriptor, stop, os.SEEK_DATA)
                stop = min(os.lseek(descriptor, start, os.SEEK_HOLE), self._size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole follows
                    return
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP) and stop == 0:
                    yield ByteRange(0, self._size)
                    return
                raise LocalError(f"cannot find the holes of {self._file.path}: {error.strerror}") from None
            if start >= self._size:
                return
            yield ByteRange(start, stop)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the disk."""
        raw = self._file.read(offset, min(size, self._size - offset))
        if len(raw) < min(size, self._size - offset):
            raise DiskRefusedError(f"{self._file.path} became shorter while it was read")
        return raw

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` when the file is not what it was at opening."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
