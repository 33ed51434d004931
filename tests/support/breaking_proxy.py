"""A TCP proxy on loopback that resets connections as one chooses: a request that was not heard, or an answer that was lost.

It knows as much of HTTP as that a piece which begins with a method's name begins a request, and which bytes follow each
other on one connection. `breaks` is asked about each request's first line and says what becomes of it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

UNHEARD = "unheard"
UNANSWERED = "unanswered"
_REQUEST = re.compile(rb"([A-Z]+ \S+) HTTP/1\.1\r\n")
_RESET_AT_ONCE = struct.pack("ii", 1, 0)


def nothing(_request: str) -> str | None:
    """No request is broken."""
    return None


@dataclass
class BreakingProxy:
    """`requests` are those that came, as "METHOD target"; set `breaks` and `when_lost` at any time."""

    port: int
    target_port: int
    breaks: Callable[[str], str | None] = nothing
    when_lost: Callable[[], None] = lambda: None
    """Called when an answer has come that will not be passed on."""
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def break_next(self, how: str, times: int = 1) -> None:
        """So many of the next requests, and forget those that came."""
        self.requests.clear()
        left = [how] * times
        self.breaks = lambda _request: left.pop() if left else None

    def serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target_port)) as server:
            lost = threading.Event()
            back = threading.Thread(target=self._answers, args=(server, client, lost), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while piece := client.recv(1 << 16):
                    how = self._how(piece)
                    if how == UNHEARD:
                        break
                    if how == UNANSWERED:
                        lost.set()
                    server.sendall(piece)
            _reset(client)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _how(self, piece: bytes) -> str | None:
        found = _REQUEST.match(piece)
        if found is None:
            return None
        request = found[1].decode()
        self.requests.append(request)
        return self.breaks(request)

    def _answers(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                if lost.is_set() and not piece.startswith(b"HTTP/1.1 100"):
                    self.when_lost()
                    break
                client.sendall(piece)
        _reset(client)


def _reset(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
        client.shutdown(socket.SHUT_RD)  # wakes the other thread; what closes it sends the reset


@contextlib.contextmanager
def breaking_proxy(target_port: int) -> Iterator[BreakingProxy]:
    """In front of a port of this machine, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = BreakingProxy(listener.getsockname()[1], target_port)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
