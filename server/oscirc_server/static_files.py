"""Files of the tree, opened for sending: plain files of this machine, or objects of a store.

A plain file that is in the page cache is read in the event loop (`preadv` with `RWF_NOWAIT`, Linux): a thread hop
costs more than copying a block. Whatever would have to wait for the disk is read in a thread.
"""

from __future__ import annotations

import asyncio
import os
import stat
from email.utils import formatdate
from typing import Protocol

from oscirc_server.storage import Storage
from oscirc_server.tree_paths import CHANGING, cache_control

_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class ServedFile(Protocol):
    """One file while it is sent: its length, what identifies its bytes, and when they were written (may be empty)."""

    size: int
    etag: str
    modified: str

    async def read(self, start: int, length: int) -> bytes | memoryview:
        """At least one byte, at most `length`, from `start`; nothing once the file has become shorter."""

    def close(self) -> None:
        """Release it."""


class LocalFile:
    """A plain file."""

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self._descriptor = descriptor
        self.size = status.st_size
        self.etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        self.modified = formatdate(status.st_mtime, usegmt=True)

    async def read(self, start: int, length: int) -> bytes | memoryview:
        """See `ServedFile`."""
        if _NOWAIT is not None:
            buffer = bytearray(length)
            try:
                count = os.preadv(self._descriptor, [buffer], start, _NOWAIT)
            except (BlockingIOError, OSError):  # not in the page cache, or a file system that cannot say
                count = 0
            if count:
                return memoryview(buffer)[:count]
        return await asyncio.to_thread(os.pread, self._descriptor, length, start)

    def close(self) -> None:
        """See `ServedFile`."""
        os.close(self._descriptor)


class StoredObject:
    """An object of a store; immutable ones are identified by their name, others not at all."""

    def __init__(self, storage: Storage, path: str, size: int) -> None:
        self._storage = storage
        self._path = path
        self.size = size
        self.etag = "" if cache_control(path) == CHANGING else f'"{path.rpartition("/")[2]}-{size:x}"'
        self.modified = ""

    async def read(self, start: int, length: int) -> bytes | memoryview:
        """See `ServedFile`."""
        if start == 0 and length >= self.size:
            return (await asyncio.to_thread(self._storage.get, self._path, self.size) or b"")[: self.size]
        return await asyncio.to_thread(self._storage.get_range, self._path, start, start + length) or b""

    def close(self) -> None:
        """See `ServedFile`: nothing is held."""


async def open_file(storage: Storage, path: str) -> LocalFile | StoredObject | None:
    """The file at a path that `tree_paths` allows, or None when there is none."""
    local = storage.local_path(path)
    if local is None:
        size = await asyncio.to_thread(storage.size, path)
        return None if size is None else StoredObject(storage, path, size)
    try:
        descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return LocalFile(descriptor, status)
