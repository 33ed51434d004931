"""Runs the server: one process, uvicorn, until SIGTERM or SIGINT; requests under way are finished, for a while.

SIGHUP reads the certificate anew (and does nothing without one). A service manager is told when connections are
accepted and when they no longer are. Metrics are served by whoever the caller gives for it, on a listener of its own.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import uvicorn
from filelock import FileLock, Timeout
from prometheus_client.registry import Collector

from oscirc_blockstore.errors import BusyError, LocalError, OscircError, UsageError
from oscirc_server import logs, supervisor_notes, tls
from oscirc_server.app import create_app
from oscirc_server.clock import Clock, system_clock
from oscirc_server.installation import Installation
from oscirc_server.metrics import Metrics
from oscirc_server.protocol import GuardedProtocol
from oscirc_server.reconciling import reconcile
from oscirc_server.settings import Listen, Settings

OnReady = Callable[[str], None]
"""Called once with the base URL when connections are accepted."""
ServeMetrics = Callable[[Collector], AbstractContextManager[object]]
"""Gives what serves a collector's metrics while it is open."""

_PEER_TIMEOUT_MS = 60_000
_OWN_FILES = 256  # of the database, the log, the store's connections, files being written

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell, then stop."""
        supervisor_notes.stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a graceful stop is a good end: the signal is not sent on."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def bind(listen: Listen) -> socket.socket:
    """A socket that listens there, or `LocalError`; port 0 lets the system choose."""
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
def _only_server(installation: Installation) -> Iterator[None]:
    """Beside SQLite there is one server; on PostgreSQL there may be many, on one data directory or several."""
    settings = installation.settings
    if not installation.database.is_sqlite:
        yield
        return
    lock = FileLock(settings.layout.serve_lock, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another server runs on {settings.data_dir}", hint="several servers need a PostgreSQL: --database URL"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _say_ready(base_url: str) -> None:
    print(f"listening on {base_url}", flush=True)


@contextlib.contextmanager
def stopped_by(stop: threading.Event | None, server: Server) -> Iterator[None]:
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


def room_for(connections: int) -> int:
    """How many connections there can be: open files are allowed as many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OWN_FILES  # a connection and the file that it is sent
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
            soft = min(wanted, hard)
    return max(1, min(connections, (soft - _OWN_FILES) // 2))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise UsageError("TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
    return tls.read(settings.tls_certificate, settings.tls_key)


@contextlib.contextmanager
def _reloaded_by_signal(settings: Settings, context: ssl.SSLContext | None, base_url: str) -> Iterator[None]:
    """SIGHUP reads certificates anew; in another thread than the main one no signal comes."""

    def reload(_number: int, _frame: object) -> None:
        supervisor_notes.reloading()
        if context is not None and settings.tls_certificate is not None and settings.tls_key is not None:
            try:
                tls.read_anew(context, settings.tls_certificate, settings.tls_key)
                _log.info("certificate read anew", extra={"certificate": str(settings.tls_certificate)})
            except OscircError as error:
                _log.error("the certificate stays as it was", extra={"error": str(error)})
        supervisor_notes.ready(base_url)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, reload)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def run(
    settings: Settings,
    ready: OnReady = _say_ready,
    *,
    clock: Clock = system_clock,
    stop: threading.Event | None = None,
    serve_metrics: ServeMetrics | None = None,
) -> None:
    """Serve until a signal comes or `stop` is set; raises what keeps the server from starting.

    `ready` is called with the real address, which matters for port 0; by default it prints one line.
    """
    logs.configure(settings.log_level, settings.log_format)
    context = _tls(settings)
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        installation = stack.enter_context(Installation.open(settings, clock))
        stack.enter_context(_only_server(installation))
        reconcile(installation)
        bound = stack.enter_context(contextlib.closing(bind(settings.listen)))
        base_url = settings.listen.url(bound.getsockname()[1], "https" if context else "http")
        app = create_app(installation, metrics)
        if serve_metrics is not None:
            stack.enter_context(serve_metrics(metrics.registry))
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `requests` does that, with the same addresses for the request's id
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.shutdown_s,
            limit_concurrency=room_for(settings.max_connections),
            ssl_context_factory=None if context is None else lambda *_: context,
        )

        def tell_ready() -> None:
            ready(base_url)
            supervisor_notes.ready(base_url)

        server = Server(config, tell_ready)
        _log.info("starting", extra={"url": base_url, "data": str(settings.data_dir)})
        with stopped_by(stop, server), _reloaded_by_signal(settings, context, base_url):
            server.run([bound])
        _log.info("stopped")
