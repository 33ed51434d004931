"""The file that is being published: opened once, watched for change, read by its descriptor and never by name again.

A regular file is compared with what it was at opening by size and times (`check_unchanged`). A block device has no
such times; one that is mounted, or held by another kernel user, is refused at opening instead.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from oscirc_blockstore.errors import DiskRefusedError, LocalError, NotFoundError
from oscirc_blockstore.table import MAX_DISK_SIZE, SECTOR_SIZE

_ALLOWED_KINDS = (stat.S_IFREG, stat.S_IFBLK)


def check_disk_size(size_bytes: int, what: str) -> int:
    """The size itself when it is one that a disk can have, else `DiskRefusedError`."""
    if size_bytes <= 0:
        raise DiskRefusedError(f"{what} is empty")
    if size_bytes % SECTOR_SIZE:
        raise DiskRefusedError(
            f"{what} has {size_bytes} bytes, which is no whole number of {SECTOR_SIZE}-byte sectors",
            hint="is it a complete download? a disk that is meant to be so can be padded with: truncate -s %512 FILE",
        )
    if size_bytes > MAX_DISK_SIZE:
        raise DiskRefusedError(f"{what} has {size_bytes} bytes; at most {MAX_DISK_SIZE} (64 TiB) are allowed")
    return size_bytes


class OpenedFile:
    """A regular file or block device, open for reading, and what it looked like then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = _open(path)
        try:
            kind = stat.S_IFMT(os.fstat(self.descriptor).st_mode)
            if kind == stat.S_IFBLK:
                self.descriptor = _reopen_exclusively(self.descriptor, path)
            self.size = os.lseek(self.descriptor, 0, os.SEEK_END) if kind in _ALLOWED_KINDS else -1
            self._seen = self._look()
        except BaseException:
            self.close()
            raise
        if self.size < 0:
            self.close()
            raise DiskRefusedError(f"{path} is neither a file nor a block device")

    def _look(self) -> tuple[int, ...]:
        status = os.fstat(self.descriptor)
        if stat.S_ISBLK(status.st_mode):
            return (os.lseek(self.descriptor, 0, os.SEEK_END),)
        return (status.st_size, status.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` when size or times differ from those at opening."""
        if self._look() != self._seen:
            raise DiskRefusedError(
                f"{self.path} changed while it was read",
                hint="stop what writes to it and publish again; what is uploaded already is not sent twice",
            )

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end of the file; raises `LocalError` on a read error."""
        try:
            raw = os.pread(self.descriptor, size, offset)
            while len(raw) < size:
                more = os.pread(self.descriptor, size - len(raw), offset + len(raw))
                if not more:
                    break
                raw += more
        except OSError as error:
            raise LocalError(f"cannot read {self.path} at byte {offset}: {error.strerror}") from None
        return raw

    def close(self) -> None:
        """Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _open(path: Path) -> int:
    try:
        # not blocking: a FIFO would otherwise wait for a writer before it can be refused
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"there is no disk {path}") from None
    except OSError as error:
        raise LocalError(f"cannot open {path}: {error.strerror}") from None


def _reopen_exclusively(descriptor: int, path: Path) -> int:
    """Linux: O_EXCL on a block device fails while it is mounted or held by another kernel user."""
    try:
        exclusive = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DiskRefusedError(f"{path} is in use", hint="unmount it, or publish a snapshot of it") from None
        raise LocalError(f"cannot open {path}: {error.strerror}") from None
    os.close(descriptor)
    return exclusive
