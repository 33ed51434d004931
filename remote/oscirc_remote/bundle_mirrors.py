"""Where bundles, delta packs and listings come from: the mirrors by their standing, over connections of their own.

Of several mirrors one that is silent, or drips, is left soon; a single one is given time, since there is nobody else.
One that does not have a file is not asked for it again: that says nothing against it, and would cost every record of a
delta pack a request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    IntegrityError,
    NotServedError,
    OscircError,
    TransportError,
)
from oscirc_remote.deadlines import Deadline
from oscirc_remote.downloads import Download
from oscirc_remote.http_client import HttpClient
from oscirc_remote.mirrors import PATIENCE_S, MirroredSource
from oscirc_remote.rate_limits import RateLimit

_Document = TypeVar("_Document")

STALL_S, LONE_STALL_S = 2.0, 10.0
SLOWEST = 16 << 10  # bytes per second, where another mirror may do better


class Part(NamedTuple):
    """Bytes of an accelerator, unverified, and the mirror that they came from."""

    raw: bytes
    source: str


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
        self._lacking: set[tuple[str, str]] = set()  # mirrors, and the paths of files that they do not have
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
        return download(self._client(name), accelerator, start, stop, several=len(names) > 1 and not self._is_held_back)

    @property
    def _is_held_back(self) -> bool:
        """Whether it is this machine's limit that makes mirrors slow."""
        return self._rate_limit is not None and self._rate_limit.bytes_per_s < 4 * SLOWEST

    def get_range(self, accelerator: Accelerator, start: int, stop: int, deadline: Deadline) -> bytes:
        """As `get_part`, for who does not ask where it came from."""
        return self.get_part(accelerator, start, stop, deadline).raw

    def get_part(
        self,
        accelerator: Accelerator,
        start: int,
        stop: int,
        deadline: Deadline,
        *,
        skip: frozenset[str] = frozenset(),
    ) -> Part:
        """Exactly these bytes of the file, unverified, from the first mirror that has them, or what the last raised.

        Mirrors to `skip` are not asked. None takes more than its share of the time; who fails is reported.
        """
        problem: TransportError = NotServedError(f"no mirror has {accelerator.path}")
        path = accelerator.path
        names = [name for name in self._mirrors.preferred() if name not in skip and (name, path) not in self._lacking]
        stall_s = STALL_S if len(names) > 1 and not self._is_held_back else LONE_STALL_S
        for at, name in enumerate(names):
            began = deadline.clock.monotonic()
            share = deadline.at_most(deadline.remaining_s() / (len(names) - at))
            try:
                with self._client(name).stream(path, start, stop, share, stall_s=stall_s) as body:
                    return Part(body.read_all(stop - start), name)
            except NotServedError as error:
                self._lacking.add((name, path))
                problem = error
            except TransportError as error:
                hurried = isinstance(error, DeadlineExceededError) and deadline.clock.monotonic() - began < PATIENCE_S
                if not hurried and not deadline.cancellation.reason and not self._closed:
                    self._mirrors.report(name, error)
                problem = error
        raise problem

    def report(self, name: str, problem: OscircError | None, *, received_bytes: int = 0, seconds: float = 0.0) -> None:
        """How a download went, and what came of it in that time."""
        self._mirrors.report(name, problem, received_bytes=received_bytes, seconds=seconds)

    def get(
        self, path: str, limit_bytes: int, deadline: Deadline, judged: Callable[[bytes], _Document]
    ) -> _Document | None:
        """A document from the first mirror that has a good one; None where none has any.

        `judged` parses it, or raises `IntegrityError`. One that is silent takes no more than its share of the time.
        Raises what the last one did, if none was good.
        """
        problem: OscircError | None = None
        names = self._mirrors.preferred()
        for at, name in enumerate(names):
            share = deadline.at_most(deadline.remaining_s() / (len(names) - at))
            try:
                return judged(self._client(name).get(path, limit_bytes, share))
            except NotServedError:
                continue
            except (TransportError, IntegrityError) as error:
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
