"""Runs one function over many items on several threads, with results in order and a bound on what is under way.

The threads are daemons and are waited for only briefly after a failure or Ctrl-C: a read from a dead network disk
must not keep the command from ending, and nothing here needs a thread's goodbye. A failure anywhere sets `stop`,
which long-running functions are expected to look at, and is raised in the consumer; of several, the first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Generic, TypeVar

_GRACE_S = 3.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, stop: threading.Event
) -> Generator[Result, None, None]:
    """`function(item)` for each item, in the items' order; at most three items a worker are taken and not given back.

    To be closed when it is left early (`contextlib.closing`), which sets `stop` and waits for the threads, briefly.
    """
    crew = _Crew(function, workers, stop)
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(crew.take(item))
            if len(under_way) >= 3 * workers:
                yield crew.result(under_way.popleft())
        while under_way:
            yield crew.result(under_way.popleft())
    except BaseException:
        stop.set()
        raise
    finally:
        crew.dismiss()


class _Crew(Generic[Item, Result]):
    """The threads, what waits for them, and how they failed."""

    def __init__(self, function: Callable[[Item], Result], workers: int, stop: threading.Event) -> None:
        self._function = function
        self._stop = stop
        self._waiting: SimpleQueue[tuple[Item, Future[Result]] | None] = SimpleQueue()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def take(self, item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        self._waiting.put((item, future))
        return future

    def result(self, future: Future[Result]) -> Result:
        try:
            return future.result()
        except CancelledError:
            raise (self._failures[0] if self._failures else CancelledError()) from None

    def dismiss(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        deadline = time.monotonic() + _GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            item, future = task
            if self._stop.is_set():
                future.cancel()
                continue
            try:
                future.set_result(self._function(item))
            except BaseException as error:  # noqa: BLE001  # it is raised in the consumer
                self._failures.append(error)
                self._stop.set()
                future.cancel()
