"""A part of a file under way, read by a thread of its own into a bounded queue.

Reading and using overlap, so that a link is kept busy while blocks are decoded; and bytes can come before it is known
whether they will be used (a bundle that an unsigned hint named): they wait in the queue, which is bounded, untouched.
"""

from __future__ import annotations

import threading
from collections import deque

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import DeadlineExceededError, OscircError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.http_client import HttpClient

QUEUE_BYTES = 16 << 20
PIECE_BYTES = 256 << 10
LONGEST_S = 24 * 3600.0


class Download:
    """Bytes `start` to `stop` of an accelerator. Starts at once; `close` ends it at any time."""

    def __init__(
        self,
        client: HttpClient,
        accelerator: Accelerator,
        start: int,
        stop: int,
        *,
        stall_s: float,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._client = client
        self._path = accelerator.path
        self._start, self._stop = start, stop
        self._whole = (start, stop) == (0, accelerator.length)
        self._stall_s = stall_s
        self._queue_bytes = queue_bytes
        self._cancellation = Cancellation()
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._error: OscircError | None = None
        self._thread = threading.Thread(target=self._run, name="oscirc-download", daemon=True)
        self._thread.start()

    @property
    def source(self) -> str:
        """The base URL it comes from."""
        return self._client.base_url

    def read(self, timeout_s: float) -> bytes:
        """The next bytes; empty at the end. Raises the download's error, once what came before it was read."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._pieces) or self._ended, timeout_s):
                raise DeadlineExceededError(f"{self._client.base_url} sent nothing for {timeout_s:g} s")
            if self._pieces:
                piece = self._pieces.popleft()
                self._held_bytes -= len(piece)
                self._changed.notify_all()
                return piece
            if self._error is not None:
                raise self._error.with_traceback(None)
            return b""

    def close(self) -> None:
        """End it; what was not read is dropped."""
        self._cancellation.cancel("the download was ended")
        with self._changed:
            self._ended = True
            self._pieces.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        deadline = Deadline.after(LONGEST_S, self._cancellation)
        left = self._stop - self._start
        try:
            with self._client.stream(
                self._path, self._start, self._stop, deadline, whole=self._whole, stall_s=self._stall_s
            ) as body:
                while left and self._has_room():
                    piece = body.read(min(PIECE_BYTES, left))
                    left -= len(piece)
                    if not piece:
                        break
                    self._put(piece)
        except OscircError as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until more may be held; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._held_bytes < self._queue_bytes or self._ended)
            return not self._ended

    def _put(self, piece: bytes) -> None:
        with self._changed:
            if not self._ended:
                self._pieces.append(piece)
                self._held_bytes += len(piece)
                self._changed.notify_all()
