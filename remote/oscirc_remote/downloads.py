"""A part of a file under way, read by a thread of its own into a bounded queue.

Reading and using overlap, so that a link is kept busy while blocks are decoded; and bytes can come before it is known
whether they will be used (a bundle that an unsigned hint named): they wait in the queue, untouched. Never more than
`queue_bytes` are held, and small pieces are held together, so that a server that sends a byte at a time costs no more.

A download that brings less than `slowest` bytes per second over `PACE_S` of reading ends like one that stalls.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import DeadlineExceededError, LocalError, OscircError, UnreachableError
from oscirc_remote.deadlines import SYSTEM_CLOCK, Cancellation, Clock, Deadline
from oscirc_remote.http_client import HttpClient

log = logging.getLogger(__name__)

QUEUE_BYTES = 16 << 20
PIECE_BYTES = 256 << 10
LONGEST_S = 24 * 3600.0
PACE_S = 10.0
_HELD_UP_SHARE = 0.1


class Download:
    """Bytes `start` to `stop` of an accelerator. Begins at once (or `LocalError`: no thread); `close` ends it."""

    def __init__(
        self,
        client: HttpClient,
        accelerator: Accelerator,
        start: int,
        stop: int,
        *,
        stall_s: float,
        slowest: float = 0.0,
        queue_bytes: int = QUEUE_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.start, self.stop = start, stop
        self._client = client
        self._path = accelerator.path
        self._whole = (start, stop) == (0, accelerator.length)
        self._stall_s = stall_s
        self._slowest = slowest
        self._queue_bytes = queue_bytes
        self._clock = clock
        self._cancellation = Cancellation()
        self._changed = threading.Condition()
        self._pieces: deque[bytes | bytearray] = deque()
        self._held_bytes = 0
        self._received_bytes = 0
        self._reading_s = self._held_up_s = 0.0
        self._ended = self._closed = False
        self._error: OscircError | None = None
        self._thread = threading.Thread(target=self._run, name="oscirc-download", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise LocalError(f"no thread to download with: {error}") from None

    @property
    def source(self) -> str:
        """The base URL it comes from."""
        return self._client.base_url

    @property
    def received_bytes(self) -> int:
        """Bytes of the file that have come, used or not."""
        return self._received_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes that wait to be read."""
        return self._held_bytes

    def pace(self) -> tuple[int, float]:
        """Bytes, and the seconds in which the link brought them; (0, 0.0) where whoever reads held it up instead."""
        if self._held_up_s > _HELD_UP_SHARE * self._reading_s:
            return 0, 0.0
        return self._received_bytes, self._reading_s

    def read(self, timeout_s: float) -> bytes:
        """The next bytes; empty at the end. Raises the download's error, once what came before it was read."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._pieces) or self._ended, timeout_s):
                raise DeadlineExceededError(f"{self._client.base_url} sent nothing for {timeout_s:g} s")
            if self._pieces:
                piece = self._pieces.popleft()
                self._held_bytes -= len(piece)
                self._changed.notify_all()
                return bytes(piece)
            if self._error is not None and not self._closed:
                raise self._error.with_traceback(None)
            return b""

    def close(self) -> None:
        """Give it up; whoever reads gets the end."""
        with self._changed:
            self._ended = self._closed = True
            self._pieces.clear()
            self._held_bytes = 0
            self._changed.notify_all()
        self._cancellation.cancel("nobody wants this download any more")

    def _run(self) -> None:
        try:
            self._receive()
        except OscircError as error:
            self._error = error
        except Exception as error:  # a mistake of ours: whoever reads must hear of it
            log.exception("a download ended")
            self._error = UnreachableError(f"{self._client.base_url} could not be read from: {error!r}"[:300])
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _receive(self) -> None:
        deadline = Deadline.after(LONGEST_S, self._cancellation, self._clock)
        left = self.stop - self.start
        pace = _Pace(self._slowest)
        began = self._clock.monotonic()
        with self._client.stream(
            self._path, self.start, self.stop, deadline, whole=self._whole, stall_s=self._stall_s
        ) as body:
            while left and (room := self._room()):
                piece = body.read(min(PIECE_BYTES, room, left))
                now = self._clock.monotonic()
                self._reading_s = now - began - self._held_up_s
                if not piece:
                    return
                left -= len(piece)
                self._put(piece)
                if pace.is_too_slow(self._reading_s, len(piece)):
                    raise DeadlineExceededError(f"{self._client.base_url} sends less than {self._slowest:.0f} bytes/s")

    def _room(self) -> int:
        """How many bytes more may be held; waits until there are some. 0 when nobody wants them any more."""
        with self._changed:
            if self._held_bytes >= self._queue_bytes and not self._ended:
                began = self._clock.monotonic()
                self._changed.wait_for(lambda: self._held_bytes < self._queue_bytes or self._ended)
                self._held_up_s += self._clock.monotonic() - began
            return 0 if self._ended else self._queue_bytes - self._held_bytes

    def _put(self, piece: bytes) -> None:
        with self._changed:
            if self._ended:
                return
            self._received_bytes += len(piece)
            self._held_bytes += len(piece)
            if self._pieces and len(self._pieces[-1]) + len(piece) <= PIECE_BYTES:
                last = self._pieces[-1]
                if not isinstance(last, bytearray):
                    last = self._pieces[-1] = bytearray(last)
                last += piece
            else:
                self._pieces.append(piece)
            self._changed.notify_all()


class _Pace:
    """Whether bytes keep coming at a least rate, looked at every `PACE_S` of reading."""

    def __init__(self, slowest: float) -> None:
        self._slowest = slowest
        self._since_s = 0.0
        self._bytes = 0

    def is_too_slow(self, reading_s: float, came: int) -> bool:
        self._bytes += came
        passed_s = reading_s - self._since_s
        if passed_s < PACE_S:
            return False
        slow = self._bytes < self._slowest * passed_s
        self._since_s, self._bytes = reading_s, 0
        return slow
