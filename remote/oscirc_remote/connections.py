"""Connections to web servers: sockets whose every read is bounded in time and in bytes.

`Connection.reader` is an ordinary buffered reader for the protocol code above. What makes it safe against a hostile
peer stands below it: before each `recv` the time left is computed from the deadline (so a peer that drips one byte a
second gains nothing), and no more bytes are taken than were allowed for this answer.

Proxies are taken from the environment (`http_proxy`, `https_proxy`, `no_proxy`), as every other program does.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import select
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from oscirc_blockstore.errors import TransportError
from oscirc_remote.deadlines import Deadline

MAX_LINE_BYTES = 8192
_BUFFER_BYTES = 64 * 1024
_HOST_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_:%"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads: scheme (http or https), host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, parts: SplitResult) -> Origin:
        """The origin of a URL; raises `TransportError` for one that this client does not speak."""
        host = parts.hostname or ""
        try:
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
            host.encode("idna")
        except (KeyError, ValueError):
            host = ""
        if not host or (host.isascii() and host.strip(_HOST_CHARACTERS)):
            raise TransportError(f"not an http(s) address: {parts.geturl()[:200]!r}")
        return cls(parts.scheme, host, port)

    @property
    def authority(self) -> str:
        """Host and port as a Host header states them."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode("ascii")
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class _BoundedSocketReader(io.RawIOBase):
    """Reads a socket until a deadline, a silence or an allowance of bytes ends it."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__()
        self.socket = connected
        self.deadline: Deadline | None = None
        self.stall_s = 0.0
        self.allowance_bytes = 0
        self.received_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a narrower type than typeshed's Buffer
        if self.allowance_bytes <= 0 or self.deadline is None:
            return 0  # reads as the end of the stream: the layer above sees an answer that is too short
        remaining = self.deadline.remaining_s()
        if remaining <= 0:
            raise TimeoutError
        self.socket.settimeout(min(remaining, self.stall_s))
        count = self.socket.recv_into(memoryview(buffer)[: self.allowance_bytes])
        self.allowance_bytes -= count
        self.received_bytes += count
        return count


class Connection:
    """One connection, used by one request at a time.

    Through an HTTP proxy a request's target starts with `target_prefix`, and its head ends with `extra_head`.
    """

    def __init__(
        self, connected: socket.socket, origin: Origin, *, target_prefix: str = "", extra_head: str = ""
    ) -> None:
        self.origin = origin
        self.target_prefix = target_prefix
        self.extra_head = extra_head
        self._raw = _BoundedSocketReader(connected)
        self.reader = io.BufferedReader(self._raw, _BUFFER_BYTES)

    @property
    def received_bytes(self) -> int:
        """Bytes received for the request that is under way."""
        return self._raw.received_bytes

    def send(self, request: bytes, deadline: Deadline, *, stall_s: float, allowance_bytes: int) -> None:
        """Send a request and set the bounds for reading its answer."""
        raw = self._raw
        raw.deadline, raw.stall_s, raw.allowance_bytes, raw.received_bytes = deadline, stall_s, allowance_bytes, 0
        remaining = deadline.remaining_s()
        if remaining <= 0:
            raise TimeoutError
        raw.socket.settimeout(min(remaining, stall_s))
        raw.socket.sendall(request)

    def is_quiet(self) -> bool:
        """Whether nothing came that no request asked for, nor a hang-up: only then may it be used again.

        TLS sends records of its own at any time, so there only what is already decrypted counts.
        """
        self._raw.allowance_bytes = 0
        if self.reader.peek(1):
            return False
        connected = self._raw.socket
        if isinstance(connected, ssl.SSLSocket):
            return connected.pending() == 0
        poll = select.poll()
        poll.register(connected, select.POLLIN | select.POLLHUP)
        return not poll.poll(0)

    def abort(self) -> None:
        """Let a read that is under way in another thread end at once.

        Past `SSLSocket.shutdown`, which would turn that read into one without TLS.
        """
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._raw.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._raw.socket.close()
        self.reader.close()


@functools.cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy_for(origin: Origin) -> SplitResult | None:
    """The proxy that the environment names for this origin, if any."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    import urllib.request  # noqa: PLC0415  # slow to import and hardly ever needed

    url = urllib.request.getproxies().get(origin.scheme)
    if not url or urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise TransportError(f"the proxy {url!r} is not one that this program can use", hint="give an http:// proxy")
    return parts


def _reach(host: str, port: int, deadline: Deadline, connect_s: float) -> socket.socket:
    """A TCP connection to the first address of `host` that answers, each one tried for at most `connect_s`."""
    problem: OSError = OSError(f"no address for {host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        remaining = deadline.remaining_s()
        if remaining <= 0:
            raise TimeoutError
        candidate = socket.socket(family, kind, protocol)
        try:
            candidate.settimeout(min(remaining, connect_s))
            candidate.connect(address)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            candidate.close()
            problem = error
        else:
            return candidate
    raise problem


def _open_tunnel(connected: socket.socket, origin: Origin, authorisation: str, deadline: Deadline) -> None:
    """Ask an HTTP proxy to connect to `origin` (RFC 9110, CONNECT)."""
    authority = f"{origin.host}:{origin.port}"
    connected.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorisation}\r\n".encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        connected.settimeout(max(deadline.remaining_s(), 0.001))
        piece = connected.recv(1)  # byte by byte: what follows the head belongs to TLS
        head += piece
        if not piece or len(head) > MAX_LINE_BYTES:
            raise TransportError(f"the proxy does not connect to {authority}")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":  # noqa: PLR2004
        raise TransportError(f"the proxy refuses to connect to {authority}: {head[:80]!r}")


def connect(origin: Origin, deadline: Deadline, connect_s: float) -> Connection:
    """A new connection, through a proxy where the environment says so; raises `OSError` or `TransportError`."""
    proxy = _proxy_for(origin)
    if proxy is None:
        connected = _reach(origin.host, origin.port, deadline, connect_s)
    else:
        connected = _reach(proxy.hostname or "", proxy.port or 80, deadline, connect_s)
    try:
        authorisation = ""
        if proxy is not None and proxy.username:
            pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            authorisation = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        if origin.scheme == "https":
            if proxy is not None:
                _open_tunnel(connected, origin, authorisation, deadline)
            connected.settimeout(max(min(deadline.remaining_s(), 2 * connect_s), 0.001))
            connected = _tls_context().wrap_socket(connected, server_hostname=origin.host)
    except BaseException:
        connected.close()
        raise
    if proxy is None or origin.scheme == "https":
        return Connection(connected, origin)
    return Connection(connected, origin, target_prefix=f"http://{origin.authority}", extra_head=authorisation)
