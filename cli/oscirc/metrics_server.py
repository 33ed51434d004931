"""Serves one page over HTTP, made anew for every request: for a monitoring system nearby, not for the world.

Bounded against whoever connects: so many connections at a time, each for so long; what is beyond is closed at once.
Only the page is served, whatever is asked for; nothing that is sent changes anything.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from oscirc_blockstore.errors import LocalError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

CONNECTIONS = 8
CONNECTION_S = 20.0


class _Handler(WSGIRequestHandler):
    timeout = 5.0  # of silence

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's
        """Nobody reads it."""


class MetricsServer(ThreadingMixIn, WSGIServer):
    """Serves what `collector` gives at `address`; raises `LocalError` when that cannot be had."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], collector: Collector) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            raise LocalError(f"cannot listen on {address[0]}:{address[1]}: {error}") from None
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        """As the base class, but without asking a resolver for a name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]  # of sockets
        """In a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._places.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]  # of sockets
        """One connection, for so long."""
        ending = threading.Timer(CONNECTION_S, _hang_up, (request,))
        ending.daemon = True
        ending.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            ending.cancel()
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or was hung up on, is no news."""


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
