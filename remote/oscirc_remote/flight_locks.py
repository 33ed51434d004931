"""Single flights among processes: who fetches a block holds its byte of `flights.lock`.

An open-file-description lock (fcntl(2), F_OFD_SETLK) on the byte that the digest names. The kernel drops it when its
holder dies. Such a lock belongs to the open file, so threads of one process do not exclude each other by it: their
`FlightTable` has done that before (who fetches on a thread of its own, to make a pack, goes past that table: two such
may fetch one block). Two digests that share a byte wait for each other, which is harmless, as is going
on without the lock where it cannot be had.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oscirc_blockstore.digests import Digest
from oscirc_remote import ofd_locks
from oscirc_remote.deadlines import Deadline

FIRST_POLL_S = 0.001
LONGEST_POLL_S = 0.02
_LOCK_BYTES = 7  # 56 bits: the greatest whole number of bytes that fits a signed file offset


class FlightLocks:
    """The locks among processes: one open file, one byte per digest."""

    def __init__(self, path: Path) -> None:
        self._guard = threading.Lock()
        self._holders = 0
        self._closing = False
        self._descriptor = -1
        with contextlib.suppress(OSError):  # a full or read-only disk: every process fetches for itself
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def holding(self, digest: Digest, deadline: Deadline, found_taken: Callable[[], None]) -> Iterator[None]:
        """Hold the digest's byte; `found_taken` is called once where another process has it, before it is waited for.

        At most half of the time left is spent waiting: if the holder is stopped or stuck, two downloads are better
        than none, so the caller then goes on without.
        """
        with self._guard:
            self._holders += 1
        held, start, pause_s = False, int.from_bytes(digest[:_LOCK_BYTES], "big"), 0.0
        try:
            patience = deadline.at_most(deadline.remaining_s() / 2)
            while not self._closing:
                taken = self._set(ofd_locks.EXCLUSIVE, start)
                held = taken is True
                if taken is not False or patience.remaining_s() <= 0:
                    break
                if not pause_s:
                    found_taken()
                pause_s = min(2 * pause_s or FIRST_POLL_S, LONGEST_POLL_S)
                patience.pause(pause_s)
            yield
        finally:
            if held:
                self._set(ofd_locks.NONE, start)
            with self._guard:
                self._holders -= 1
                self._close_when_idle()

    def _set(self, kind: int, start: int) -> bool | None:
        """True when done, False when another process holds the byte, None where locks do not work."""
        if self._descriptor < 0:
            return None
        try:
            return ofd_locks.take(self._descriptor, kind, start, 1)
        except OSError:
            return None

    def close(self) -> None:
        """Take no more locks; the file is closed with the last one, never under a holder's feet."""
        with self._guard:
            self._closing = True
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._closing and self._holders == 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
