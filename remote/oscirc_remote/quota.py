"""A limit for the cache, minded by whoever writes to it: looks when it has written enough, in a thread of its own.

Eviction takes seconds on a large cache, so no read waits for it, and a look is worth its time: the next one comes when
a quarter of the room that the last one found was written (others may write too), or a fiftieth of the limit, whichever
is more. Between two looks a cache may be a little over its limit; a pull, which nobody waits for, writes nothing while
an evictor looks. Where what must stay fills the limit, nothing more is kept until there is room again (`is_full`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from oscirc_blockstore.errors import OscircError
from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock
from oscirc_remote.eviction import Evicted, Evictor

log = logging.getLogger(__name__)

LEAST_STEP_BYTES, MOST_STEP_BYTES = 16 << 20, 1 << 30
STEPS = 50
ROOM_SHARE = 4
LEAST_STEPS = 10
FULL_FOR_S = 60.0
LONGEST_LOOK_S = 20.0


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="oscirc-evictor", daemon=True).start()


class Quota:
    """One process's view of the limit. Safe for threads. `waits`: whoever writes waits for a look under way."""

    def __init__(
        self,
        evictor: Evictor,
        limit_bytes: int,
        *,
        waits: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        run: Callable[[Callable[[], None]], None] = _in_thread,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._evictor = evictor
        self._clock = clock
        self._run = run
        step = min(max(limit_bytes // STEPS, LEAST_STEP_BYTES), MOST_STEP_BYTES)
        self._step = max(1, min(step, limit_bytes // LEAST_STEPS))
        self._unlooked = self._next = self._step  # look at the first write
        self._looking = False
        self._idle = threading.Event()
        self._idle.set()
        self._waits = waits
        self._full_until = 0.0
        self._lock = threading.Lock()

    def kept(self, size_bytes: int) -> None:
        """So many bytes were written."""
        with self._lock:
            self._unlooked += size_bytes
            begins = not self._looking and self._unlooked >= self._next
            if begins:
                self._looking, self._unlooked = True, 0
                self._idle.clear()
        if begins:
            try:
                self._run(self._look)
            except RuntimeError as error:  # no thread to be had: at the next write
                log.warning("the cache's limit could not be kept: %s", error)
                self._looked()
        if self._waits:
            self._idle.wait(LONGEST_LOOK_S)

    def is_full(self) -> bool:
        """Whether nothing more may be kept, because what must stay fills the limit. Looks again now and then."""
        if not self._full_until:
            return False
        if self._clock.monotonic() >= self._full_until:
            self.kept(self._next)
        return bool(self._full_until)

    def why(self) -> str:
        """What to say about it."""
        return f"what is pinned, mounted or an instance's base fills the cache's limit of {self.limit_bytes} bytes"

    def _look(self) -> None:
        try:
            evicted = self._evictor.run(self.limit_bytes)
            if not evicted.busy:
                self._judge(evicted)
        except OscircError as error:
            log.warning("the cache's limit could not be kept: %s", error)
        except Exception:
            log.exception("an eviction ended")
        finally:
            self._looked()

    def _looked(self) -> None:
        with self._lock:
            self._looking = False
        self._idle.set()

    def _judge(self, evicted: Evicted) -> None:
        if evicted.bytes_freed:
            log.info("evicted %d files, %d bytes", evicted.files_freed, evicted.bytes_freed)
        self._next = max(self._step, (self.limit_bytes - evicted.bytes_left) // ROOM_SHARE)
        full = evicted.bytes_left >= self.limit_bytes
        self._full_until = self._clock.monotonic() + FULL_FOR_S if full else 0.0
