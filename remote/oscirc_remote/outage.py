"""Whether the network is gone, as far as the reads of one image can tell.

- A read that needs the network is *waiting* from its start to its end, however that comes.
- An outage shows itself in two ways: a read failed for a reason that may heal (nothing reached, no answer in time), or
  one has waited for `SUSPECT_S` while every mirror is in trouble. Nobody needs to wait for a deadline to be told.
- It began when that read did, or with the last answer after that: what came meanwhile came over a network.
- It is over with the first answer: a read's own, or a block that any mirror served since (`served` grew).
- What cannot heal (no mirror has it, all lie) and what was called off by this machine is no outage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oscirc_blockstore.errors import DeadlineExceededError, TransportError
from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock
from oscirc_remote.status import MirrorStatus

SUSPECT_S = 3.0


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """How many reads wait now; what is wrong with the network (empty: nothing known), and for how many seconds."""

    waiting_reads: int = 0
    problem: str = ""
    gone_s: float = 0.0


class Outage:
    """What the reads of one image met; `mirrors` tells how those do that serve it. Safe for threads."""

    def __init__(self, mirrors: Callable[[], tuple[MirrorStatus, ...]], clock: Clock = SYSTEM_CLOCK) -> None:
        self._mirrors = mirrors
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[object, float] = {}
        self._answered_at = clock.monotonic()
        self._began: float | None = None
        self._problem = ""
        self._served = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around a read that needs the network: notes how it went and lets what it raised pass."""
        read, started = object(), self._clock.monotonic()
        with self._lock:
            self._waiting[read] = started
        try:
            yield
        except TransportError as error:
            if error.retryable:
                mirrors = self._mirrors()
                with self._lock:
                    if read in self._waiting:
                        self._begin(max(started, self._answered_at), _cause(error, mirrors), _served(mirrors))
            raise
        else:
            with self._lock:
                self._end()
        finally:
            with self._lock:
                self._waiting.pop(read, None)

    def called_off(self) -> None:
        """This machine makes the waiting reads fail: what they raise says nothing of the network."""
        with self._lock:
            self._waiting.clear()

    def status(self) -> NetworkStatus:
        """As of now."""
        mirrors = self._mirrors()
        with self._lock:
            if self._began is not None and _served(mirrors) > self._served:
                self._end()
            now, began, problem = self._clock.monotonic(), self._began, self._problem
            oldest = min(self._waiting.values(), default=now)
            if began is None and mirrors and all(mirror.demoted for mirror in mirrors):
                suspected = max(oldest, self._answered_at)
                if now - suspected >= SUSPECT_S:
                    began, problem = suspected, _problems(mirrors)
            gone_s = 0.0 if began is None else round(now - began, 1)
            return NetworkStatus(len(self._waiting), "" if began is None else problem, gone_s)

    def _begin(self, at: float, problem: str, served: int) -> None:
        self._began = at if self._began is None else min(at, self._began)
        self._problem, self._served = problem, served

    def _end(self) -> None:
        self._answered_at = self._clock.monotonic()
        self._began, self._problem = None, ""


def _cause(error: TransportError, mirrors: tuple[MirrorStatus, ...]) -> str:
    """Why a read failed; where it only ran out of time, beside others who asked for the same, what its mirrors did."""
    if isinstance(error, DeadlineExceededError) and mirrors and all(mirror.demoted for mirror in mirrors):
        return f"{error} ({_problems(mirrors)})"
    return str(error)


def _problems(mirrors: tuple[MirrorStatus, ...]) -> str:
    return "; ".join(f"{mirror.name}: {mirror.last_problem}" for mirror in mirrors)


def _served(mirrors: tuple[MirrorStatus, ...]) -> int:
    return sum(mirror.served for mirror in mirrors)
