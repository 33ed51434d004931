"""The tree that the kernel sees: a root directory and `disk.raw` in it, read-only and constant.

Inode numbers, sizes and times never change and stay valid for a day, so the kernel keeps every page it once had and
asks once for what it looks up, absent names included. Whatever would change something is EROFS (the kernel itself
says so first: the mount is read-only). Only `FUSEError` leaves a handler; any other exception would end the mount.
"""

# ruff: noqa: ARG002  # the handlers' signatures are pyfuse3's

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, RequestContext, StatvfsData

from oscirc_blockstore.errors import OscircError, UsageError
from oscirc_fusedriver.records import FILE_NAME
from oscirc_fusedriver.status import DriverCounters

log = logging.getLogger(__name__)

ROOT = pyfuse3.ROOT_INODE
DISK = pyfuse3.InodeT(2)
NAME = pyfuse3.FileNameT(FILE_NAME.encode())
VALID_S = 86400.0
PAGE = 4096

_ERRNO: tuple[tuple[type[OscircError], int], ...] = (
    (UsageError, errno.EINVAL),
    (OscircError, errno.EIO),  # trust, integrity, transport, local: a disk that cannot be read
)
_REFUSED = (
    "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "write", "create", "setxattr",
    "removexattr",
)  # fmt: skip

Tree = TypeVar("Tree", bound="ReadOnlyTree")
P = ParamSpec("P")
R = TypeVar("R")


def errno_of(error: OscircError) -> int:
    """What a program is told.

    A deadline is EIO too: ETIMEDOUT from `pread` surprises programs, and QEMU's `rerror=stop` makes no difference.
    ENOSPC would tell the guest's user that *his* disk is full.
    """
    return next(code for branch, code in _ERRNO if isinstance(error, branch))


def guarded(
    handler: Callable[Concatenate[Tree, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Tree, P], Coroutine[Any, Any, R]]:
    """Let nothing but `FUSEError` out: our errors by the table, any other as EIO with a traceback in the log."""

    @functools.wraps(handler)
    async def guard(self: Tree, /, *arguments: P.args, **named: P.kwargs) -> R:
        try:
            return await handler(self, *arguments, **named)
        except FUSEError:
            raise
        except OscircError as error:
            self.count_error(error)
            log.warning("%s%r: %s", handler.__name__, arguments, error)
            raise FUSEError(errno_of(error)) from None
        except Exception as error:
            self.count_error(error)
            self.counters.unexpected += 1
            log.exception("%s%r failed unexpectedly", handler.__name__, arguments)
            raise FUSEError(errno.EIO) from None

    return guard


class ReadOnlyTree(pyfuse3.Operations):
    """Everything but opening and reading the file. `last_error` is the last one that a program was told as an errno."""

    supports_dot_lookup = False

    def __init__(self, size: int, *, timestamp_s: int, counters: DriverCounters) -> None:
        super().__init__()
        self.counters = counters
        self.last_error: Exception | None = None
        self._size = size
        self._timestamp_ns = timestamp_s * 10**9
        self._root = self._attributes(ROOT, stat.S_IFDIR | 0o555, 0)
        self._disk = self._attributes(DISK, stat.S_IFREG | 0o444, size)
        self._absent = EntryAttributes()
        self._absent.st_ino = pyfuse3.InodeT(0)
        self._absent.entry_timeout = VALID_S

    def _attributes(self, inode: pyfuse3.InodeT, mode: int, size: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = pyfuse3.ModeT(mode)
        entry.st_nlink = 1
        entry.st_uid = os.getuid()
        entry.st_gid = os.getgid()
        entry.st_size = size
        entry.st_blksize = PAGE
        entry.st_blocks = -(-size // 512)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._timestamp_ns
        entry.entry_timeout = entry.attr_timeout = VALID_S
        return entry

    def count_error(self, error: Exception) -> None:
        """Count and remember it."""
        self.counters.errors += 1
        self.counters.last_error = str(error) or type(error).__name__
        self.last_error = error

    @guarded
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """The file, or "no such entry", which the kernel remembers too."""
        return self._disk if (parent_inode, name) == (ROOT, NAME) else self._absent

    @guarded
    async def getattr(self, inode: pyfuse3.InodeT, ctx: RequestContext) -> EntryAttributes:
        """Constant."""
        if inode not in (ROOT, DISK):
            raise FUSEError(errno.ENOENT)
        return self._root if inode == ROOT else self._disk

    @guarded
    async def opendir(self, inode: pyfuse3.InodeT, ctx: RequestContext) -> pyfuse3.FileHandleT:
        """The root is the only directory."""
        if inode != ROOT:
            raise FUSEError(errno.ENOTDIR)
        return pyfuse3.FileHandleT(ROOT)

    @guarded
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """One entry."""
        if start_id == 0:
            pyfuse3.readdir_reply(token, NAME, self._disk, 1)

    @guarded
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Nothing is held."""

    @guarded
    async def access(self, inode: pyfuse3.InodeT, mode: pyfuse3.ModeT, ctx: RequestContext) -> bool:
        """The kernel checks permissions itself (default_permissions); writing is never possible."""
        return not mode & os.W_OK

    @guarded
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """A full file system of the disk's size."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = PAGE
        data.f_blocks = -(-self._size // PAGE)
        data.f_files = 2
        data.f_namemax = 255
        return data

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Inodes are constant: nothing to forget."""

    @guarded
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Nothing is held."""

    @guarded
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Nothing is ever dirty."""


async def _refuse(*_arguments: object) -> NoReturn:
    raise FUSEError(errno.EROFS)


for _name in _REFUSED:
    setattr(ReadOnlyTree, _name, _refuse)
