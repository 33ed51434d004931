"""Opening and reading the disk, in pyfuse3's trio thread.

- A read is served at once when this machine has the bytes. (A block is a `pread` and a hash, 0.25 ms; a thread costs
  that much by itself.) Else it goes to a thread, of which there are so many, and gets so much time.
- The answer is exact. A reader that returns another length is an error: the kernel would cache zeros for the rest.
- When read-ahead fails, the kernel asks again for the one page that somebody waits for. Were that to wait for the
  network once more, an error would take two deadlines; so for a moment a failed range fails at once.
"""

# ruff: noqa: ARG002  # the handlers' signatures are pyfuse3's

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable

import pyfuse3
import trio
from pyfuse3 import FileInfo, FUSEError, RequestContext

from oscirc_blockstore.errors import DeadlineExceededError, IntegrityError, OscircError
from oscirc_fusedriver.readers import MountOptions, Reader
from oscirc_fusedriver.recording import Recorder
from oscirc_fusedriver.status import DriverCounters
from oscirc_fusedriver.tree import DISK, ReadOnlyTree, guarded

THREADS = 64
_ECHO_S = 0.25
_FAILURES_KEPT = 64


class DiskOperations(ReadOnlyTree):
    """Serves `reader` as `disk.raw`. `on_waited(offset, length)` is called after a read that needed a thread."""

    def __init__(
        self,
        reader: Reader,
        options: MountOptions,
        *,
        counters: DriverCounters,
        on_waited: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(reader.size, timestamp_s=options.timestamp_s, counters=counters)
        self._reader = reader
        self._options = options
        self._on_waited = on_waited
        self.recorder: Recorder | None = None
        self._limiter = trio.CapacityLimiter(THREADS)
        self._awaited: list[tuple[int, int]] = []
        self._failures: deque[tuple[float, int, int, OscircError]] = deque(maxlen=_FAILURES_KEPT)

    @guarded
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: RequestContext) -> FileInfo:
        """Read-only; pages outlive the last close."""
        if inode != DISK:
            raise FUSEError(errno.EISDIR)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        direct = self._options.direct_io
        return FileInfo(fh=pyfuse3.FileHandleT(DISK), direct_io=direct, keep_cache=not direct)

    @guarded
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Bytes of the disk; fewer than `size` only at its end."""
        counters = self.counters
        counters.reads += 1
        length = min(size, self._size - off)
        if length <= 0:
            return b""
        if self.recorder is not None:
            self.recorder.note(off, length)
        data = self._reader.read_if_resident(off, length)
        if data is None:
            data = await self._wait_for(off, length)
        else:
            counters.inline += 1
        if len(data) != length:
            raise IntegrityError(f"the reader returned {len(data)} bytes for {length} at {off}")
        counters.read_bytes += length
        return data  # type: ignore[return-value]  # a memoryview is as good: pyfuse3 asks for a buffer

    async def _wait_for(self, offset: int, length: int) -> bytes | memoryview:
        self.counters.waited += 1
        self._fail_if_it_just_failed(offset, length)
        asked = (offset, offset + length)
        self._awaited.append(asked)
        limit_s = self._options.read_limit_s
        try:
            with trio.fail_after(limit_s):
                data = await trio.to_thread.run_sync(
                    self._reader.read, offset, length, abandon_on_cancel=True, limiter=self._limiter
                )
        except trio.TooSlowError:
            error: OscircError = DeadlineExceededError(f"no answer from the reader within {limit_s:g} s")
            self._remember_failure(offset, length, error)
            raise error from None
        except OscircError as error:
            self._remember_failure(offset, length, error)
            raise
        finally:
            self._awaited.remove(asked)
        if self._on_waited is not None:
            self._on_waited(offset, length)
        return data

    def is_awaited(self, start: int, stop: int) -> bool:
        """Whether a read that waits for the network covers some of these bytes; may be asked from any thread."""
        return any(low < stop and start < high for low, high in tuple(self._awaited))

    def _remember_failure(self, offset: int, length: int, error: OscircError) -> None:
        self._failures.append((time.monotonic() + _ECHO_S, offset, offset + length, error))

    def _fail_if_it_just_failed(self, offset: int, length: int) -> None:
        now = time.monotonic()
        while self._failures and self._failures[0][0] < now:
            self._failures.popleft()
        for _, start, stop, error in self._failures:
            if start <= offset and offset + length <= stop:
                raise error.with_traceback(None)
