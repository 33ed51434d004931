"""Writes blocks to the store beside the thread that decodes them; a bounded queue in between."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

QUEUED = 64


class Saver:
    """Runs jobs one after another in a thread of its own. `put` waits while too many are queued.

    A job that fails is logged and the next one runs: a queue that nobody empties would hold up whoever fills it.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUED)
        self._thread: threading.Thread | None = None

    def put(self, job: Callable[[], None]) -> None:
        """Have it run after those before it; at once, by the caller, where this machine has no thread for it."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="oscirc-saver", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                _do(job)
                return
            self._thread = thread
        self._jobs.put(job)

    def close(self) -> None:
        """Wait until all are done."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(job)


def _do(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:
        log.exception("a block was not kept")
