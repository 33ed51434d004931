"""uvicorn's HTTP protocol with two bounds that it lacks: on the length of a request's head, and on waiting for it.

Without them a client could hold a connection open by sending nothing, or fill memory with one endless header.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0


class GuardedProtocol(HttpToolsProtocol):
    """One connection; between requests uvicorn's own keep-alive timer is what ends it."""

    head_timeout_s = HEAD_TIMEOUT_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """The first head is waited for from now on."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _give_up(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete yet."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def send_400_response(self, msg: str) -> None:
        """A problem also for what is no HTTP, or too long a head; then nothing more is read."""
        document = {"type": "BadRequestError", "title": "Bad Request", "status": 400, "detail": msg}
        body = json.dumps(document).encode("ascii")
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/problem+json\r\n"
            "cache-control: no-store\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """A further request on this connection."""
        if not self._in_head:
            self._wait_for_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is here: bodies have bounds of their own."""
        self._in_head = False
        self._head_timer.cancel()
        super().on_headers_complete()
