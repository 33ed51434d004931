"""GET over urllib3, in which all is bounded: time, head, body, redirects, what is kept alive. Whole, or as a stream.

urllib3 parses, pools, verifies certificates and speaks to proxies; `bounded_connections` bounds its reads. What stands
here are the rules of this project: one error tree; a body is refused as soon as it is known to be too long, the body of
an error is not read beyond a few KiB; redirects (at most 5) never lead from https to http; a request on a kept
connection that breaks before the first byte is sent once more on a new one; proxies are taken from the environment
(`http_proxy`, `https_proxy`, `no_proxy`). What is returned is verified by digest or signature in the layers above.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import unquote, urljoin

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager
from urllib3 import exceptions as problems
from urllib3.util import Timeout, Url, make_headers, parse_url

from oscirc_blockstore.errors import (
    NotServedError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.bounded_connections import BoundedHttpPool, BoundedHttpsPool, Exchange
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_bodies import PARTIAL, Body, translated
from oscirc_remote.rate_limits import RateLimit

MAX_REDIRECTS = 5
HEAD_BYTES = 64 * 1024  # what heads, chunk lines and trailers may add to the body, besides an eighth of it
DRAIN_BYTES = 4096  # an error's body this short is read so that the connection can be kept
DRAIN_S = 0.5
CONNECT_S = 5.0
STALL_S = 5.0
MAX_IDLE = 16

_HEADERS = {"User-Agent": "oscirc", "Accept": "*/*", "Accept-Encoding": "identity"}
_REDIRECTS = (301, 302, 303, 307, 308)
_ABSENT = (404, 410)
_OK = 200


class HttpClient:
    """GETs below one base URL; connections are kept and shared among threads."""

    def __init__(self, base_url: str, *, connect_s: float = CONNECT_S, rate_limit: RateLimit | None = None) -> None:
        self._rate_limit = rate_limit
        self.base_url = base_url.rstrip("/")
        self.counters = Counters("requests", "received_bytes")
        self._connect_s = connect_s
        self._managers: dict[tuple[str | None, str], PoolManager] = {}
        self._under_way: set[Exchange] = set()
        self._lock = threading.Lock()
        self._closed = False

    def get(
        self, path: str, limit_bytes: int, deadline: Deadline, *, stall_s: float = STALL_S, query: str = ""
    ) -> bytes:
        """The body at `path` (already quoted), at most `limit_bytes` long; anything else is a `TransportError`."""
        headers = {**_HEADERS, "Cache-Control": "no-cache"} if query else _HEADERS
        target = f"{path}?{query}" if query else path
        with self._asked(target, headers, limit_bytes, deadline, stall_s) as body:
            if body.status != _OK:
                raise ServerRefusedError(
                    f"{self.base_url} answered with status {body.status}, unasked", status=body.status
                )
            return body.read_all(limit_bytes)

    @contextlib.contextmanager
    def stream(
        self, path: str, start: int, stop: int, deadline: Deadline, *, whole: bool = False, stall_s: float = STALL_S
    ) -> Iterator[Body]:
        """Bytes `start` to `stop` of the file at `path`, to be read piece by piece.

        Asks by Range unless that is the `whole` file, which caches on the way keep more readily. A server that answers
        with another range is a `TransportError`.
        """
        headers = _HEADERS if whole else {**_HEADERS, "Range": f"bytes={start}-{stop - 1}"}
        with self._asked(path, headers, stop - start, deadline, stall_s) as body:
            body.check_range(start, stop)
            yield body

    def close(self) -> None:
        """Drop the kept connections, and let the requests that are under way fail at once."""
        with self._lock:
            self._closed = True
            for exchange in self._under_way:
                exchange.end()
            for manager in self._managers.values():
                manager.clear()

    @contextlib.contextmanager
    def _asked(
        self, path: str, headers: dict[str, str], limit_bytes: int, deadline: Deadline, stall_s: float
    ) -> Iterator[Body]:
        """The answer that carries a body, redirects followed."""
        url = f"{self.base_url}/{path}"
        for _ in range(MAX_REDIRECTS + 1):
            with contextlib.ExitStack() as ending:
                body = self._answer(url, headers, limit_bytes, deadline, stall_s, ending)
                if isinstance(body, Body):
                    yield body
                    return
                url = self._redirected(url, body)
        raise TransportError(f"{self.base_url} redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
        except ValueError:
            raise TransportError(f"{self.base_url} redirects to {location[:200]!r}, which is no address") from None
        if url.lower().startswith("https:") and not target.lower().startswith("https:"):
            raise TransportError(f"{self.base_url} redirects to an address without TLS: {target[:200]!r}")
        return target

    def _answer(
        self,
        url: str,
        headers: dict[str, str],
        limit_bytes: int,
        deadline: Deadline,
        stall_s: float,
        ending: contextlib.ExitStack,
    ) -> Body | str:
        """The body, or the address that a redirect names; `ending` lets go of the connection."""
        response, exchange = self._send(url, headers, limit_bytes, deadline, stall_s, ending)
        try:
            if exchange.at_end:  # http.client takes a head that breaks off for one that is complete
                raise UnreachableError(f"{exchange.authority} broke off in the head of its answer")
            if response.status in (_OK, PARTIAL):
                return Body(response, exchange, self.counters, self._rate_limit)
            return self._no_body(response, exchange)
        except (problems.HTTPError, OSError, ValueError) as error:
            raise translated(error, exchange) from None

    def _send(
        self,
        url: str,
        headers: dict[str, str],
        limit_bytes: int,
        deadline: Deadline,
        stall_s: float,
        ending: contextlib.ExitStack,
    ) -> tuple[BaseHTTPResponse, Exchange]:
        """The head of the answer; sent once more when a kept connection turned out to be dead."""
        try:
            parts = parse_url(url)
            manager = self._manager_for(parts)
        except (problems.HTTPError, ValueError) as error:
            raise TransportError(f"not an address that can be asked for: {url[:200]!r} ({error})") from None
        allowance_bytes = HEAD_BYTES + limit_bytes + limit_bytes // 8
        while True:
            exchange = Exchange(parts.netloc or "", deadline, stall_s=stall_s, allowance_bytes=allowance_bytes)
            left_s = exchange.time_left_s()
            with contextlib.ExitStack() as trying:
                self._enter(exchange, trying)
                try:
                    exchange.begin()
                    response = manager.urlopen(
                        "GET",
                        url,
                        headers=headers,
                        timeout=Timeout(connect=min(self._connect_s, left_s), read=min(stall_s, left_s)),
                        retries=False,
                        redirect=False,
                        preload_content=False,
                        decode_content=False,
                    )
                except (problems.HTTPError, OSError, ValueError) as error:
                    exchange.time_left_s()
                    hung_up = isinstance(error, problems.ProtocolError) and exchange.received_bytes == 0
                    if exchange.kept and hung_up:
                        continue
                    raise translated(error, exchange) from None
                trying.callback(response.release_conn)
                trying.callback(response.close)  # read to its end, it has given the connection back; else it is closed
                ending.push(trying.pop_all())
                return response, exchange

    def _enter(self, exchange: Exchange, ending: contextlib.ExitStack) -> None:
        """Count a request as under way until `ending`."""
        with self._lock:
            if self._closed:
                raise UnreachableError(f"the connections to {self.base_url} were closed")
            self._under_way.add(exchange)
        self.counters.add("requests")

        def left() -> None:
            exchange.finish()
            with self._lock:
                self._under_way.discard(exchange)
            self.counters.add("received_bytes", exchange.uncounted())

        ending.callback(left)
        ending.enter_context(exchange.deadline.cancellation.calling(exchange.end))

    def _manager_for(self, parts: Url) -> PoolManager:
        """The connections for addresses like this one, through a proxy where the environment says so."""
        proxy = _proxy_for(parts)
        with self._lock:
            manager = self._managers.get((parts.scheme, proxy))
            if manager is None:
                context = _tls_context() if parts.scheme == "https" else None
                if proxy:
                    address = parse_url(proxy)
                    login = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
                    manager = ProxyManager(proxy, maxsize=MAX_IDLE, proxy_headers=login, ssl_context=context)
                else:
                    manager = PoolManager(maxsize=MAX_IDLE, ssl_context=context)
                manager.pool_classes_by_scheme = {"http": BoundedHttpPool, "https": BoundedHttpsPool}
                self._managers[parts.scheme, proxy] = manager
            return manager

    def _no_body(self, response: BaseHTTPResponse, exchange: Exchange) -> str:
        """The address that a redirect names; every other answer is an error."""
        if response.length_remaining is not None and response.length_remaining <= DRAIN_BYTES:
            exchange.deadline = exchange.deadline.at_most(DRAIN_S)
            with contextlib.suppress(problems.HTTPError, TransportError):
                response.read(DRAIN_BYTES)
        location = response.headers.get("location")
        if response.status in _REDIRECTS and location:
            return location
        if response.status in _ABSENT:
            raise NotServedError(f"{self.base_url} does not have {(response.url or '')[-120:]}")
        after = response.headers.get("retry-after", "")  # as a date it is of no use: clocks differ
        raise ServerRefusedError(
            f"{self.base_url} answered with status {response.status}",
            status=response.status,
            retry_after_s=float(after) if after.isascii() and after.isdecimal() and len(after) < 10 else 0.0,  # noqa: PLR2004
        )


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _proxy_for(parts: Url) -> str:
    """The proxy that the environment names for an address, or nothing."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    import urllib.request  # noqa: PLC0415  # slow to import and hardly ever needed

    proxy = urllib.request.getproxies().get(parts.scheme or "", "")
    if not proxy or urllib.request.proxy_bypass(parts.netloc or ""):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if parse_url(proxy).scheme != "http":
        raise TransportError(
            f"the proxy set for {parts.scheme} is not one that this program can use", hint="give an http:// proxy"
        )
    return proxy
