"""Where bundles and their listings come from: the mirrors by their standing, over connections of their own.

Of several mirrors one that is silent, or drips, is left soon; a single one is given time, since there is nobody else.
"""

from __future__ import annotations

import threading

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import NotServedError, OscircError, TransportError
from oscirc_remote.deadlines import Deadline
from oscirc_remote.downloads import Download
from oscirc_remote.http_client import HttpClient
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.rate_limits import RateLimit

STALL_S, LONE_STALL_S = 2.0, 10.0
SLOWEST = 16 << 10  # bytes per second, where another mirror may do better


def download(client: HttpClient, accelerator: Accelerator, start: int, stop: int, *, several: bool) -> Download:
    """Begin to download bytes `start` to `stop`, from one of `several` mirrors or from the only one."""
    if several:
        return Download(client, accelerator, start, stop, stall_s=STALL_S, slowest=SLOWEST)
    return Download(client, accelerator, start, stop, stall_s=LONE_STALL_S)


class BundleMirrors:
    """A `StreamMirrors` over the mirrors of a `MirroredSource`, to which it reports. Safe for threads."""

    def __init__(self, mirrors: MirroredSource, rate_limit: RateLimit | None = None) -> None:
        self._mirrors = mirrors
        self._rate_limit = rate_limit
        self._clients: dict[str, HttpClient] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        with self._lock:
            return sum(client.counters["requests"] for client in self._clients.values())

    @property
    def received_bytes(self) -> int:
        """Bytes received so far."""
        with self._lock:
            return sum(client.counters["received_bytes"] for client in self._clients.values())

    def open(self, accelerator: Accelerator, start: int, stop: int, skip: frozenset[str]) -> Download | None:
        """A download from the best mirror that is not to be skipped; None when none is left."""
        names = self._mirrors.preferred()
        name = next((name for name in names if name not in skip), None)
        if name is None:
            return None
        return download(self._client(name), accelerator, start, stop, several=len(names) > 1)

    def report(self, name: str, problem: OscircError | None, *, received_bytes: int = 0, seconds: float = 0.0) -> None:
        """How a download went, and what came of it in that time."""
        self._mirrors.report(name, problem, received_bytes=received_bytes, seconds=seconds)

    def get(self, path: str, limit_bytes: int, deadline: Deadline) -> bytes | None:
        """A document from the first mirror that has it; None where none does, an error where one could not be asked."""
        problem: OscircError | None = None
        for name in self._mirrors.preferred():
            try:
                return self._client(name).get(path, limit_bytes, deadline)
            except NotServedError:
                continue
            except TransportError as error:
                problem = error
        if problem is not None:
            raise problem
        return None

    def close(self) -> None:
        """End what is under way, and begin nothing more."""
        with self._lock:
            self._closed = True
            clients = list(self._clients.values())
        for client in clients:
            client.close()

    def _client(self, name: str) -> HttpClient:
        with self._lock:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = HttpClient(name, rate_limit=self._rate_limit)
            closed = self._closed
        if closed:
            client.close()
        return client
