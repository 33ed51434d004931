"""Pushes the rest of a block into the kernel's page cache once the block is here.

The kernel asks for 4 to 128 kB; what came over the network is a block of 64 KiB to 1 MiB. What was not asked for is put
into the page cache, which saves a call per run of pages when the guest comes to it (a Debian boot's reads replayed: 925
calls instead of 1577 with 128 kB of read-ahead, 573 instead of 1120 with 1024).

Rules:

- `notify_store` runs in a thread of its own: the kernel makes it wait for a page that is being read, and that read is
  answered by the trio thread. It is called under no lock.
- Pages of a read that waits for the network are left alone. A thread that waits for a page cannot be killed and would
  keep a killed driver's connection open for ever, with everybody who reads from it.
- Nothing is stored past the end of the disk (that would make the file longer), nor less than a page, except the last.
- The queue is short and drops: pages are only hints. ENOENT means that the kernel does not know the inode yet.
- The session must outlive the thread: `stop` before closing it.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import OscircError
from oscirc_fusedriver.readers import Reader
from oscirc_fusedriver.status import DriverCounters

log = logging.getLogger(__name__)

PAGE = 4096
_QUEUE_LENGTH = 1024

Store = Callable[[int, bytes | memoryview], None]


def rest_of_blocks(offset: int, length: int, *, block_size: int, disk_size: int) -> list[ByteRange]:
    """The whole pages that share a block with these bytes and were not asked for: at most one run on each side."""
    first = offset // block_size * block_size
    end = min(-(-(offset + length) // block_size) * block_size, disk_size)
    before = ByteRange(first, offset // PAGE * PAGE)
    start = min(-(-(offset + length) // PAGE) * PAGE, end)
    return [run for run in (before, ByteRange(start, end)) if run.size]


class PagePusher:
    """One thread that stores what belongs to what `offer` names.

    `store(offset, data)` is `notify_store` for the one inode; `is_awaited(start, stop)` tells whether a read of some of
    these bytes waits.
    """

    def __init__(
        self,
        reader: Reader,
        store: Store,
        is_awaited: Callable[[int, int], bool],
        *,
        block_size: int,
        counters: DriverCounters,
    ) -> None:
        self._is_awaited = is_awaited
        self._reader = reader
        self._store = store
        self._block_size = block_size
        self._disk_size = reader.size
        self._counters = counters
        self._queue: queue.Queue[list[ByteRange] | None] = queue.Queue(_QUEUE_LENGTH)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="page-pusher", daemon=True)
        self._thread.start()

    def offer(self, offset: int, length: int) -> None:
        """These bytes were just read; never waits."""
        try:
            self._queue.put_nowait(
                rest_of_blocks(offset, length, block_size=self._block_size, disk_size=self._disk_size)
            )
        except queue.Full:
            self._counters.stores_dropped += 1

    def offer_block(self, offset: int, length: int) -> None:
        """These bytes came before anybody asked; never waits."""
        try:
            self._queue.put_nowait([ByteRange(offset, offset + length)])
        except queue.Full:
            self._counters.stores_dropped += 1

    def stop(self, timeout_s: float) -> bool:
        """End the thread; whether it has ended in that time."""
        self._stopping = True
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            runs = self._queue.get()
            if runs is None:
                return
            try:
                self._push(runs)
            except Exception:  # pages are only hints: nothing that goes wrong here may matter
                log.exception("pages of %s were not pushed", runs)

    def _push(self, runs: list[ByteRange]) -> None:
        for run in runs:
            if self._stopping:
                return
            if self._is_awaited(run.start, run.stop):
                self._counters.stores_skipped += 1
                continue
            try:
                data = self._reader.read_if_resident(run.start, run.size)
                if data is None or len(data) != run.size:
                    continue
                self._store(run.start, data)
            except FileNotFoundError:
                continue
            except (OSError, OscircError) as error:
                log.debug("pages at %d were not pushed: %s", run.start, error)
                continue
            self._counters.stores += 1
            self._counters.stored_bytes += run.size
