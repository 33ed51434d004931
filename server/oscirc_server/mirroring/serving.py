"""Runs a mirror that fetches on demand: one process, uvicorn, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from oscirc_blockstore.errors import UsageError
from oscirc_remote.rate_limits import RateLimit
from oscirc_server import logs
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.on_demand import OnDemand
from oscirc_server.mirroring.pull_through import FRESH_S, PullThrough
from oscirc_server.mirroring.quota import TreeQuota
from oscirc_server.protocol import GuardedProtocol
from oscirc_server.running import Server, bind, room_for, stopped_by
from oscirc_server.settings import Listen

_SHUTDOWN_S = 20
_KEEP_ALIVE_S = 75
_MOST_CONNECTIONS = 4096
_log = logging.getLogger(__name__)


class _MirrorServer(Server):
    """Calls off what is being fetched before it waits for who waits for that."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], on_demand: OnDemand) -> None:
        super().__init__(config, ready)
        self._on_demand = on_demand

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop fetching, then stop."""
        await asyncio.to_thread(self._on_demand.close)
        await super().shutdown(sockets)


def serve(
    directory: MirrorDirectory,
    listen: Listen,
    ready: Callable[[str], None],
    *,
    quota_bytes: int | None = None,
    fresh_s: float = FRESH_S,
    rate_limit: RateLimit | None = None,
    log_level: str = "info",
    log_format: logs.LogFormat = "lines",
    stop: threading.Event | None = None,
) -> None:
    """Serve until a signal comes or `stop` is set. `ready` is called with the real address."""
    if quota_bytes is not None and directory.complete_versions():
        raise UsageError(
            f"{directory.root} holds whole versions that a sync made: a quota would take them apart",
            hint="give no --quota, or another directory",
        )
    logs.configure(log_level, log_format)
    with contextlib.closing(bind(listen)) as bound:
        base_url = listen.url(bound.getsockname()[1])
        quota = TreeQuota(directory, quota_bytes)
        on_demand = OnDemand(directory, quota, rate_limit=rate_limit)
        config = uvicorn.Config(
            PullThrough(on_demand, quota, fresh_s=fresh_s),
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            limit_concurrency=room_for(_MOST_CONNECTIONS),
        )
        server = _MirrorServer(config, lambda: ready(base_url), on_demand)
        _log.info("starting", extra={"url": base_url, "mirror_of": directory.remote.url})
        with stopped_by(stop, server):
            server.run([bound])
        _log.info("stopped")
