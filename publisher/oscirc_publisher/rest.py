"""The control connection to a repository: bounded requests, bounded answers, bounded patience.

- Every answer has a maximum length and a deadline, is never decompressed, and never follows a redirect: a server
  cannot make this program allocate, wait or go elsewhere at will.
- What may succeed later is tried again with growing pauses (`Patience`), `Retry-After` included, until the budget is
  spent. Callers only send what is safe to send twice: every call of ADR 2 is.
- Errors of the server (RFC 9457 problems) become errors of our tree, with the server's own words, made printable.
- `stop` ends pauses and uploads at once; whoever sets it has an error of its own to raise.

Safe for several threads.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import httpx

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
    UsageError,
)
from oscirc_blockstore.repository_facts import check_url
from oscirc_publisher.problems import MAX_PROBLEM_BYTES, not_served, parse_object, refusal

JSON = "application/json"
OCTETS = "application/octet-stream"
MAX_ANSWER_BYTES = 1 << 20
_CONNECT_TIMEOUT_S, _WRITE_TIMEOUT_S = 10.0, 60.0
_ANSWER_TIMEOUT_S = 120.0
_ERROR_STATUS = 400


class StoppedError(TransportError):
    """Given up because something else failed or the user interrupted."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses before each further try, in seconds; each is shortened at random by up to a quarter."""

    pauses_s: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries: `size` bytes in pieces, made as they are sent, and anew for each try."""

    size: int = 0
    pieces: Callable[[], Iterable[bytes]] = tuple
    media_type: str = OCTETS

    @classmethod
    def of(cls, raw: bytes, media_type: str = OCTETS) -> Body:
        """These bytes as one piece."""
        return cls(len(raw), lambda: (raw,), media_type)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    body: Body
    max_bytes: int
    authorised: bool
    timeout_s: float = _ANSWER_TIMEOUT_S


class RestClient:
    """`url` is the repository's base, `api_url` where `api/v1/` stands if elsewhere; `token` goes to the API only.

    `connections` should be no fewer than the threads that use it: a thread that finds none free waits.
    """

    def __init__(
        self,
        url: str,
        *,
        api_url: str = "",
        token: str | None = None,
        connections: int = 16,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _base(url)
        self._api = _base(api_url) if api_url else f"{self.url}/api/v1"
        self._token = token
        self._patience = patience or Patience()
        self.stop = threading.Event()
        self._client = httpx.Client(
            headers={"Accept-Encoding": "identity", "User-Agent": "oscirc"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
            verify=_trusted_authorities(self.url, self._api),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def fetch(self, path: str, max_bytes: int) -> bytes:
        """A file of the static tree, unverified; raises `NotServedError` when it is not there."""
        return self._patiently(_Request("GET", f"{self.url}/{path}", Body(), max_bytes, authorised=False))

    def call(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        max_bytes: int = MAX_ANSWER_BYTES,
        once: bool = False,
        timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> bytes:
        """An API call; the answer's bytes, at most `max_bytes`, which must begin and then end within `timeout_s`.

        With `once`, trying again is left to the caller.
        """
        request = _Request(
            method, f"{self._api}/{path}", body or Body(), max_bytes, authorised=True, timeout_s=timeout_s
        )
        return self._once(request) if once else self._patiently(request)

    def call_json(
        self, method: str, path: str, document: object | None = None, *, timeout_s: float = _ANSWER_TIMEOUT_S
    ) -> dict[str, object]:
        """An API call with a JSON object on each side (or nothing on the way there)."""
        body = Body() if document is None else Body.of(json.dumps(document).encode(), JSON)
        return parse_object(self.call(method, path, body, timeout_s=timeout_s))

    def pause(self, attempt: int, error: TransportError) -> bool:
        """Wait before try number `attempt` + 1; False when the budget is spent or `error` would only come again."""
        if not error.retryable or attempt >= len(self._patience.pauses_s):
            return False
        pause_s = self._patience.pauses_s[attempt] * (1 - random.random() / 4)  # noqa: S311  # not a secret
        if isinstance(error, ServerRefusedError):
            asked = error.problem.get("retry_after")
            pause_s = max(pause_s, asked if isinstance(asked, float) else 0.0)
        if self.stop.wait(pause_s):
            raise StoppedError("stopped while waiting to try again")
        return True

    def _patiently(self, request: _Request) -> bytes:
        attempt = 0
        while True:
            try:
                return self._once(request)
            except TransportError as error:
                if not self.pause(attempt, error):
                    raise
                attempt += 1

    def _once(self, request: _Request) -> bytes:
        headers: dict[str, str] = {}
        if request.method != "GET":
            headers |= {"Content-Length": str(request.body.size), "Content-Type": request.body.media_type}
        if request.authorised and self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = self._pieces(request.body) if request.body.size else None
        try:
            with self._client.stream(
                request.method,
                request.url,
                headers=headers,
                content=content,
                timeout=httpx.Timeout(_WRITE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, read=request.timeout_s),
            ) as response:
                if response.status_code >= _ERROR_STATUS:
                    raise _error_of(response, request)
                if not response.is_success:
                    raise ServerRefusedError(
                        f"{request.url} answers with status {response.status_code}, which is not understood",
                        status=response.status_code,
                    )
                return _read(response, request.max_bytes, request.timeout_s)
        except httpx.TimeoutException:
            raise DeadlineExceededError(f"{_host(request.url)} did not answer in time") from None
        except httpx.TransportError as error:
            raise UnreachableError(f"{_host(request.url)} cannot be reached: {error}") from None
        except httpx.InvalidURL as error:
            raise UsageError(f"{request.url} is not an address: {error}") from None

    def _pieces(self, body: Body) -> Iterator[bytes]:
        for piece in body.pieces():
            if self.stop.is_set():
                raise StoppedError("stopped during an upload")
            yield piece


def _trusted_authorities(*urls: str) -> ssl.SSLContext | bool:
    """Those of the system; none where no certificate will be asked for, since loading them takes 50 ms."""
    return any(httpx.URL(url).scheme == "https" for url in urls) or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _base(url: str) -> str:
    try:
        return check_url(url, "the repository's address")
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None


def _host(url: str) -> str:
    return httpx.URL(url).netloc.decode(errors="replace")


def _read(response: httpx.Response, max_bytes: int, timeout_s: float) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise OversizedResponseError(f"{_host(str(response.url))} answers compressed, which was not asked for")
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    for piece in response.iter_raw():
        received += piece
        if len(received) > max_bytes:
            raise OversizedResponseError(f"{_host(str(response.url))} answers with more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"{_host(str(response.url))} answers too slowly")
    return bytes(received)


def _error_of(response: httpx.Response, request: _Request) -> OscircError:
    raw = _read(response, MAX_PROBLEM_BYTES, request.timeout_s)
    if not request.authorised:
        return not_served(response.status_code, request.url)
    return refusal(response.status_code, raw, response.headers.get("Retry-After", ""))
