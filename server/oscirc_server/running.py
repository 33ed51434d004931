"""Runs the server: one process, uvicorn, until SIGTERM or SIGINT; requests under way are finished, for a while."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from filelock import FileLock, Timeout

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_server import logs
from oscirc_server.app import create_app
from oscirc_server.clock import Clock, system_clock
from oscirc_server.installation import Installation
from oscirc_server.protocol import GuardedProtocol
from oscirc_server.reconciling import reconcile
from oscirc_server.settings import Listen, Settings

OnReady = Callable[[str], None]
"""Called once with the base URL when connections are accepted."""

_PEER_TIMEOUT_MS = 60_000

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server that says when it is ready, and returns after a signal instead of raising it again."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if not self.should_exit:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a graceful stop is a good end: the signal is not sent on."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _bind(listen: Listen) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise LocalError(f"cannot listen on {listen.host}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # inherited by connections: a peer that takes nothing is given up
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PEER_TIMEOUT_MS)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise LocalError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror}", hint="choose another with --listen"
        ) from None
    return bound


@contextlib.contextmanager
def _only_server(settings: Settings) -> Iterator[None]:
    lock = FileLock(settings.layout.serve_lock, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"another server runs on {settings.data_dir}") from None
    try:
        yield
    finally:
        lock.release()


def _say_ready(base_url: str) -> None:
    print(f"listening on {base_url}", flush=True)


@contextlib.contextmanager
def _stopped_by(stop: threading.Event | None, server: Server) -> Iterator[None]:
    """Let another thread stop the server, which signals cannot reach outside the main thread."""
    if stop is None:
        yield
        return

    def watch() -> None:
        stop.wait()
        server.should_exit = True

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def run(
    settings: Settings,
    ready: OnReady = _say_ready,
    *,
    clock: Clock = system_clock,
    stop: threading.Event | None = None,
) -> None:
    """Serve until a signal comes or `stop` is set; raises what keeps the server from starting.

    `ready` is called with the real address, which matters for port 0; by default it prints one line.
    """
    logs.configure(settings.log_level)
    with Installation.open(settings, clock) as installation, _only_server(settings):
        reconcile(installation)
        with contextlib.closing(_bind(settings.listen)) as bound:
            base_url = settings.listen.url(bound.getsockname()[1])
            config = uvicorn.Config(
                create_app(installation),
                http=GuardedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=settings.shutdown_s,
                limit_concurrency=settings.max_connections,
            )
            server = Server(config, lambda: ready(base_url))
            _log.info("starting", extra={"url": base_url, "data": str(settings.data_dir)})
            with _stopped_by(stop, server):
                server.run([bound])
            _log.info("stopped")
