"""Threads that come when there is work and go when there is none.

`concurrent.futures` keeps its threads for good and waits for them at exit; a request that is stuck in name resolution
would then hold up the end of a mount. These are daemons, and a burst of reads leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

IDLE_S = 10.0


class Workers:
    """Runs tasks at once, each on an idle thread or a new one; beyond `limit` threads, tasks wait their turn."""

    def __init__(self, name: str, limit: int, *, idle_s: float = IDLE_S) -> None:
        self._name = name
        self._limit = limit
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._idle = 0  # waiting, or woken for a task that stands in the queue
        self._alive = 0
        self._closed = False

    @property
    def alive(self) -> int:
        """Threads there are now."""
        return self._alive

    def run(self, task: Callable[[], None]) -> None:
        """Have `task`, which raises nothing, run. Raises `RuntimeError` when this machine has no thread for it."""
        with self._changed:
            self._tasks.append(task)
            if self._idle >= len(self._tasks):
                self._changed.notify()
            elif self._alive < self._limit:
                self._start_thread(task)

    def close(self) -> None:
        """Let idle threads end at once; what is queued or runs is finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _start_thread(self, task: Callable[[], None]) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            if not self._alive:
                self._tasks.remove(task)
                raise
            return  # one of those that live will come to it
        self._alive += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._tasks:
                    if self._closed:
                        self._alive -= 1
                        return
                    self._idle += 1
                    woken = self._changed.wait(self._idle_s)
                    self._idle -= 1
                    if not woken and not self._tasks:
                        self._alive -= 1
                        return
                task = self._tasks.popleft()
            task()
