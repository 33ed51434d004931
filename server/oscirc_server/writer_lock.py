"""The writer's lock: whoever changes metadata holds it, among threads of a server and among processes.

A thread lock first, then a lock file in the data directory, which the kernel releases when its holder dies.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from oscirc_blockstore.errors import BusyError, LocalError

WAIT_S = 60.0


class WriterLock:
    """Not reentrant."""

    def __init__(self, path: Path, wait_s: float = WAIT_S) -> None:
        self._file = FileLock(path, thread_local=False)
        self._threads = threading.Lock()
        self._wait_s = wait_s

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; raise `BusyError` when it is not to be had in time."""
        if not self._threads.acquire(timeout=self._wait_s):
            raise BusyError("another request has been changing the repository for too long")
        try:
            try:
                self._file.acquire(timeout=self._wait_s)
            except Timeout:
                raise BusyError("another process is changing the repository", hint="try again") from None
            except OSError as error:
                raise LocalError(f"cannot lock {self._file.lock_file}: {error.strerror}") from None
            try:
                yield
            finally:
                self._file.release()
        finally:
            self._threads.release()
