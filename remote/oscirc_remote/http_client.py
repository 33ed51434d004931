"""A strict HTTP/1.1 client for GET, in which everything is bounded: time, head, body, redirects, what is kept alive.

Why not one of the libraries: each leaves a hole here. obstore (object_store) collects the body of an *error* answer
without limit, a gigabyte in three seconds from a hostile mirror on loopback; httpx, urllib3 and http.client do not
bound the whole time of an answer that drips, and are slower from threads. This one was measured level with obstore.
What it returns is verified by digest or by signature in the layers above, so its parser may be narrow: an answer that
it does not understand is an error of transport, and the connection is dropped.

Rules: one connection carries one request at a time, is used again only when the answer ended where it should and
nothing follows; a request on a kept connection that breaks before the first byte is sent once more on a new one;
bodies of errors are not read beyond a few KiB; redirects (at most 5) never lead from https to http.
"""

from __future__ import annotations

import re
import ssl
import threading
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from oscirc_blockstore.errors import (
    NotServedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.connections import MAX_LINE_BYTES, Connection, Origin, connect
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import Deadline

MAX_REDIRECTS = 5
MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
DRAIN_BYTES = 4096  # an error's body this short is read so that the connection can be kept
CONNECT_S = 5.0
STALL_S = 5.0
MAX_IDLE = 16

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")
_LENGTH = re.compile(r"\d{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_REDIRECTS = (301, 302, 303, 307, 308)
_ABSENT = (404, 410)
_FRAMING = ("content-length", "transfer-encoding", "content-encoding")
_OK = 200


class _NoAnswerError(Exception):
    """A kept connection was closed by the other side before it answered."""


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    headers: dict[str, str]
    keep_alive: bool

    @property
    def chunked(self) -> bool:
        return "transfer-encoding" in self.headers

    @property
    def length(self) -> int | None:
        """The declared length; None where the end of the connection or a last chunk ends the body."""
        text = self.headers.get("content-length")
        if self.chunked or text is None:
            return None
        if not _LENGTH.fullmatch(text):
            raise TransportError(f"an answer declares the length {text[:40]!r}")
        return int(text)


class HttpClient:
    """GETs below one base URL; connections are kept and shared among threads."""

    def __init__(self, base_url: str, *, connect_s: float = CONNECT_S) -> None:
        self.base_url = base_url.rstrip("/")
        self.counters = Counters("requests", "received_bytes")
        self._connect_s = connect_s
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def get(
        self, path: str, limit_bytes: int, deadline: Deadline, *, stall_s: float = STALL_S, query: str = ""
    ) -> bytes:
        """The body at `path` (already quoted), at most `limit_bytes` long; anything else is a `TransportError`."""
        url = f"{self.base_url}/{path}" + (f"?{query}" if query else "")
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._request(url, limit_bytes, deadline, stall_s, fresh=bool(query))
            if isinstance(answer, bytes):
                return answer
            try:
                target = urljoin(url, answer)
            except ValueError:
                raise TransportError(f"{self.base_url} redirects to {answer[:200]!r}, which is no address") from None
            if url.startswith("https:") and not target.startswith("https:"):
                raise TransportError(f"{self.base_url} redirects to an address without TLS: {target[:200]!r}")
            url = target
        raise TransportError(f"{self.base_url} redirects more than {MAX_REDIRECTS} times")

    def close(self) -> None:
        """Drop the kept connections, and let the requests that are under way fail at once."""
        with self._lock:
            self._closed = True
            kept = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
            for connection in self._busy:
                connection.abort()
        for connection in kept:
            connection.close()

    def _request(self, url: str, limit_bytes: int, deadline: Deadline, stall_s: float, *, fresh: bool) -> bytes | str:
        """The body, or the address that a redirect names."""
        origin, target = _split(url)
        try:
            while True:
                connection = self._take_idle(origin)
                kept = connection is not None
                if connection is None:
                    connection = connect(origin, deadline, self._connect_s)
                try:
                    return self._exchange(connection, target, limit_bytes, deadline, stall_s, fresh=fresh)
                except _NoAnswerError:
                    if not kept:
                        raise UnreachableError(f"{origin.authority} hung up without an answer") from None
                finally:
                    self.counters.add("received_bytes", connection.received_bytes)
        except OscircError:
            raise
        except TimeoutError:
            raise deadline.exceeded(f"{origin.authority} did not answer") from None
        except ssl.SSLCertVerificationError as error:
            raise TransportError(
                f"the certificate of {origin.authority} is not valid: {error.verify_message}",
                hint="look at this machine's clock, and at who is between it and the server",
            ) from None
        except OSError as error:
            raise UnreachableError(f"cannot reach {origin.authority}: {error.strerror or error}") from None

    def _take_idle(self, origin: Origin) -> Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                connection = idle.pop() if idle else None
            if connection is None or connection.is_quiet():
                return connection
            connection.close()

    def _keep(self, connection: Connection) -> bool:
        """Whether the connection was kept for the next request."""
        with self._lock:
            idle = self._idle.setdefault(connection.origin, [])
            if self._closed or len(idle) >= MAX_IDLE:
                return False
            idle.append(connection)
            return True

    def _exchange(
        self, connection: Connection, target: str, limit_bytes: int, deadline: Deadline, stall_s: float, *, fresh: bool
    ) -> bytes | str:
        """One request and its answer; the connection is kept or closed before this returns."""
        reusable = False
        with self._lock:
            if self._closed:
                connection.close()
                raise UnreachableError(f"the connections to {self.base_url} were closed")
            self._busy.add(connection)
        try:
            self.counters.add("requests")
            request = _request_head(connection, target, fresh=fresh)
            try:
                connection.send(
                    request,
                    deadline,
                    stall_s=stall_s,
                    allowance_bytes=MAX_HEAD_BYTES + limit_bytes + limit_bytes // 8 + DRAIN_BYTES,
                )
                head = _read_head(connection)
            except ConnectionError:
                if connection.received_bytes == 0:
                    raise _NoAnswerError from None
                raise
            if head.status == _OK:
                body = _read_body(connection, head, limit_bytes)
                reusable = head.keep_alive
                return body
            reusable = head.keep_alive and _drain(connection, head)
            return self._refused(head, target)
        finally:
            with self._lock:
                self._busy.discard(connection)
            if not (reusable and self._keep(connection)):
                connection.close()

    def _refused(self, head: _Head, target: str) -> str:
        if head.status in _REDIRECTS and head.headers.get("location"):
            return head.headers["location"]
        if head.status in _ABSENT:
            raise NotServedError(f"{self.base_url} does not have {target[-120:]}")
        raise ServerRefusedError(f"{self.base_url} answered with status {head.status}", status=head.status)


def _split(url: str) -> tuple[Origin, str]:
    """Where to connect and what to ask for; raises `TransportError` for what must not stand in a request."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise TransportError(f"not an address: {url[:200]!r}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(character <= " " or character == "\x7f" for character in target):
        raise TransportError(f"not an address that can be asked for: {url[:200]!r}")
    return Origin.of(parts), target


def _request_head(connection: Connection, target: str, *, fresh: bool) -> bytes:
    origin = connection.origin
    lines = [
        f"GET {connection.target_prefix}{target} HTTP/1.1",
        f"Host: {origin.authority}",
        "User-Agent: oscirc",
        "Accept: */*",
        "Accept-Encoding: identity",
    ]
    if fresh:
        lines.append("Cache-Control: no-cache")
    return ("\r\n".join(lines) + f"\r\n{connection.extra_head}\r\n").encode("ascii")


def _read_line(connection: Connection) -> bytes:
    line = connection.reader.readline(MAX_LINE_BYTES + 1)
    if not line.endswith(b"\n"):
        if not line and connection.received_bytes == 0:
            raise _NoAnswerError
        raise UnreachableError(f"{connection.origin.authority} broke off, or sent a head without end")
    return line


def _read_head(connection: Connection) -> _Head:
    for _ in range(MAX_HEADERS):  # 100 Continue, 103 Early Hints: heads without a body come before the answer
        status_line = _STATUS_LINE.fullmatch(_read_line(connection))
        if status_line is None:
            raise TransportError(f"{connection.origin.authority} does not speak HTTP/1.1")
        headers: dict[str, str] = {}
        for _ in range(MAX_HEADERS + 1):
            line = _read_line(connection).rstrip(b"\r\n")
            if not line:
                break
            name, colon, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip(" \t")
            contradicts = name in _FRAMING and headers.get(name, value) != value
            if not colon or not name or name != name.strip() or contradicts:
                raise TransportError(f"{connection.origin.authority} sent a malformed head")
            headers.setdefault(name, value)
        else:
            raise TransportError(f"{connection.origin.authority} sent a head of more than {MAX_HEADERS} lines")
        status = int(status_line[2])
        if status >= _OK:
            options = headers.get("connection", "").lower()
            keep_alive = "keep-alive" in options if status_line[1] == b"0" else "close" not in options
            framed_once = ("content-length" in headers) != ("transfer-encoding" in headers)
            return _Head(status, headers, keep_alive and framed_once)
    raise TransportError(f"{connection.origin.authority} sends provisional answers without end")


def _read_body(connection: Connection, head: _Head, limit_bytes: int) -> bytes:
    authority = connection.origin.authority
    encoding = head.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ServerRefusedError(f"{authority} sent the encoding {encoding[:40]!r} unasked", status=head.status)
    if head.chunked:
        return _read_chunks(connection, head, limit_bytes)
    length = head.length
    if length is None:
        body = connection.reader.read(limit_bytes + 1)
        if len(body) > limit_bytes:
            raise OversizedResponseError(f"{authority} sent more than the {limit_bytes} bytes allowed")
        return body
    if length > limit_bytes:
        raise OversizedResponseError(f"{authority} declares {length} bytes where {limit_bytes} are allowed")
    body = connection.reader.read(length)
    if len(body) != length:
        raise UnreachableError(f"{authority} broke off after {len(body)} of {length} bytes")
    return body


def _read_chunks(connection: Connection, head: _Head, limit_bytes: int) -> bytes:
    authority = connection.origin.authority
    if head.headers["transfer-encoding"].lower() != "chunked":
        raise TransportError(f"{authority} sent an unknown transfer encoding")
    body = bytearray()
    while True:
        line = _CHUNK_LINE.fullmatch(_read_line(connection))
        if line is None:
            raise TransportError(f"{authority} sent a malformed chunk")
        size = int(line[1], 16)
        if len(body) + size > limit_bytes:
            raise OversizedResponseError(f"{authority} sent more than the {limit_bytes} bytes allowed")
        if size == 0:
            while _read_line(connection).rstrip(b"\r\n"):
                pass  # trailers; the allowance bounds them
            return bytes(body)
        body += connection.reader.read(size)
        if _read_line(connection).rstrip(b"\r\n"):
            raise TransportError(f"{authority} sent a malformed chunk")


def _drain(connection: Connection, head: _Head) -> bool:
    """Read the short body of an error; False where it is not short, and the connection is better dropped."""
    length = head.length
    return length is not None and length <= DRAIN_BYTES and len(connection.reader.read(length)) == length
