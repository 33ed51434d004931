"""Writes blocks to the store beside the thread that decodes them; a bounded queue in between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

QUEUED = 64


class Saver:
    """Runs jobs one after another in a thread of its own. `put` waits while too many are queued."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._run, name="oscirc-saver", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Have it run after those before it."""
        self._jobs.put(job)

    def close(self) -> None:
        """Wait until all are done."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
