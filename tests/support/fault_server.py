"""A small static HTTP server on loopback that misbehaves on request: what hostile and broken mirrors do.

Serves a mapping of paths to bytes (shared with the test, which may change it while the server runs), or a directory;
whole files, or the range that is asked for. Every request is recorded. `inject` puts a fault on the paths that match a glob; the latest matching one wins. A fault
is a function that gets the `Answer` that would be sent and changes it. What stalls does so until `release()` or
`close()`, so that tests wait for what they test and for nothing else; only `slow` and `drip` let time pass.

    with FaultServer(files) as server:
        server.inject("blocks/*", flip_bit(), times=1)
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

Files = Mapping[str, bytes] | Path


@dataclass(frozen=True)
class Request:
    """One request as it arrived: path below the base URL, query, headers (names in lower case), the client's port."""

    path: str
    query: str
    headers: Mapping[str, str]
    port: int = 0

    def wanted(self, length: int) -> tuple[int, int]:
        """First byte and the one after the last that are asked for, of a file of that length."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), min(length, int(found[2]) + 1)) if found and int(found[1]) < length else (0, length)


@dataclass
class Answer:
    """What will be sent. `declared` is the Content-Length (None: chunked); `body` may be an endless iterator."""

    request: Request
    status: int
    body: bytes | Iterator[bytes]
    declared: int | None
    headers: dict[str, str] = field(default_factory=dict)
    hold_before_head: bool = False
    hold_after_bytes: int | None = None
    delay_s: float = 0.0
    drip_s: float = 0.0


Fault = Callable[[Answer], None]


def _raw(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def flip_bit(at: int = -1) -> Fault:
    """One bit of the byte at `at` is wrong."""

    def fault(answer: Answer) -> None:
        body = bytearray(_raw(answer))
        body[at] ^= 1
        answer.body = bytes(body)

    return fault


def flip_each() -> Fault:
    """A bit of every byte is wrong."""

    def fault(answer: Answer) -> None:
        answer.body = bytes(byte ^ 1 for byte in _raw(answer))

    return fault


def replace(body: bytes) -> Fault:
    """Other bytes, honestly declared: a wrong block, a bomb, an old document."""

    def fault(answer: Answer) -> None:
        answer.status, answer.body, answer.declared = 200, body, len(body)

    return fault


def shorten(by: int = 1) -> Fault:
    """The last bytes are missing and the declared length agrees."""

    def fault(answer: Answer) -> None:
        answer.body = _raw(answer)[:-by]
        answer.declared = len(answer.body)

    return fault


def truncate(keep: int = 10) -> Fault:
    """The connection breaks after `keep` bytes of a body declared in full."""

    def fault(answer: Answer) -> None:
        answer.body = _raw(answer)[:keep]

    return fault


def pad(by: int = 1) -> Fault:
    """Zeros after the body, declared."""

    def fault(answer: Answer) -> None:
        answer.body = _raw(answer) + bytes(by)
        answer.declared = len(answer.body)

    return fault


def over_long(declared: int | None = 1 << 40) -> Fault:
    """A body without end, declared as a terabyte or (None) not at all."""

    def fault(answer: Answer) -> None:
        answer.body, answer.declared = iter(lambda: bytes(65536), None), declared

    return fault


def no_length() -> Fault:
    """The right body, chunked, without Content-Length."""

    def fault(answer: Answer) -> None:
        answer.declared = None

    return fault


def status(code: int, **headers: str) -> Fault:
    """An error answer."""

    def fault(answer: Answer) -> None:
        answer.status, answer.body = code, b"no"
        answer.declared = 2
        answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    return fault


def redirect(location: str) -> Fault:
    """302 to `location`."""
    return status(302, Location=location)


def stall(after_bytes: int | None = None) -> Fault:
    """Nothing comes (or nothing more after some bytes of the body) until the server is released or closed."""

    def fault(answer: Answer) -> None:
        if after_bytes is None:
            answer.hold_before_head = True
        else:
            answer.hold_after_bytes = after_bytes

    return fault


def slow(seconds: float) -> Fault:
    """The right answer, that much later."""

    def fault(answer: Answer) -> None:
        answer.delay_s = seconds

    return fault


def drip(seconds: float, piece: int = 100) -> Fault:
    """The right answer, a few bytes at a time with pauses between."""

    def fault(answer: Answer) -> None:
        body = _raw(answer)
        answer.body, answer.drip_s = (body[at : at + piece] for at in range(0, len(body), piece)), seconds

    return fault


def reset() -> Fault:
    """The connection is reset instead of an answer."""

    def fault(answer: Answer) -> None:
        answer.status = 0

    return fault


def every(count: int, fault: Fault) -> Fault:
    """The fault for one answer in so many, the first included."""
    numbers = itertools.count()

    def sometimes(answer: Answer) -> None:
        if next(numbers) % count == 0:
            fault(answer)

    return sometimes


def about_every_tenth(fault: Fault) -> Fault:
    """The fault for one block in ten, the same ones whenever they are asked for: by the end of its digest."""

    def sometimes(answer: Answer) -> None:
        if int(Path(answer.request.path).stem[-8:], 16) % 10 == 0:
            fault(answer)

    return sometimes


def on_connections(ports: Collection[int], fault: Fault) -> Fault:
    """The fault on the connections that these ports of clients belong to."""

    def conditional(answer: Answer) -> None:
        if answer.request.port in ports:
            fault(answer)

    return conditional


def unless_query(fault: Fault, word: str) -> Fault:
    """A poisoned HTTP cache: the fault, except for requests whose query holds `word`."""

    def conditional(answer: Answer) -> None:
        if word not in answer.request.query:
            fault(answer)

    return conditional


@dataclass
class _Rule:
    pattern: str
    fault: Fault
    left: int | None


class FaultServer:
    """The server; `url` is its base. Use as a context manager."""

    def __init__(self, files: Files, *, prefix: str = "repo", tls: ssl.SSLContext | None = None) -> None:
        self._files = files
        self._tls = tls
        self._prefix = prefix
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._asked = threading.Condition(self._lock)
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.requests: list[Request] = []
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        """Base URL without a final slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/{self._prefix}"

    def start(self) -> None:
        """Listen (again, on the same port)."""
        self._released.clear()
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        if self._tls is not None:  # the handshake then happens at the first read, on the connection's own thread
            self._server.socket = self._tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, let go of what is held, and cut the connections that are open."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._released.set()
        self._server.cut_connections()
        self._server.server_close()
        self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inject(self, pattern: str, fault: Fault, *, times: int | None = None) -> None:
        """Apply `fault` to requests whose path matches the glob, `times` times or always."""
        with self._lock:
            self._rules.insert(0, _Rule(pattern, fault, times))

    def serve(self, files: Files) -> None:
        """Serve other files from now on."""
        self._files = files

    def heal(self) -> None:
        """Forget all faults and let go of what is held."""
        with self._lock:
            self._rules.clear()
        self.release()

    def release(self) -> None:
        """Let go of the answers that are held now; later ones are held again."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()

    def wait_until_asked(self, pattern: str, times: int = 1, timeout_s: float = 20.0) -> None:
        """Return when that many requests match the glob; fail the test when they do not come."""
        with self._lock:
            came = self._asked.wait_for(lambda: self._count(pattern) >= times, timeout_s)
        assert came, f"{pattern} was not asked for {times} times"

    def forget(self) -> None:
        """Count what is asked for from now on."""
        with self._lock:
            self.requests.clear()

    def count(self, pattern: str = "*") -> int:
        """Requests whose path matches the glob."""
        with self._lock:
            return self._count(pattern)

    def _count(self, pattern: str) -> int:
        return sum(fnmatch.fnmatchcase(request.path, pattern) for request in self.requests)

    def asked_of(self, path: str) -> list[tuple[int, int]]:
        """The parts of a file that were asked for, in order: first byte and the one after the last."""
        length = len(self._load(path) or b"")
        with self._lock:
            return [request.wanted(length) for request in self.requests if request.path == path]

    def counts(self) -> Counter[str]:
        """Requests by path."""
        with self._lock:
            return Counter(request.path for request in self.requests)

    def _load(self, path: str) -> bytes | None:
        if isinstance(self._files, Path):
            file = self._files / path
            return file.read_bytes() if ".." not in path and file.is_file() else None
        return self._files.get(path)

    def answer(self, request: Request) -> tuple[Answer, threading.Event]:
        """Record the request and say what is to be sent, and what to wait for where it is held."""
        body = self._load(request.path)
        if body is None:
            answer = Answer(request, 404, b"not found", len(b"not found"))
        else:
            start, stop = request.wanted(len(body))
            answer = Answer(request, 200, body[start:stop], stop - start)
            if "range" in request.headers:
                answer.status = 206
                answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        with self._lock:
            self.requests.append(request)
            self._asked.notify_all()
            for rule in self._rules:
                if rule.left != 0 and fnmatch.fnmatchcase(request.path, rule.pattern):
                    if rule.left is not None:
                        rule.left -= 1
                    rule.fault(answer)
                    break
            return answer, self._released

    def path_of(self, target: str) -> tuple[str, str]:
        """Path below the base URL, and query."""
        parts = urlsplit(target)
        return unquote(parts.path).removeprefix(f"/{self._prefix}/"), parts.query


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], owner: FaultServer) -> None:
        self.owner = owner
        self.open_sockets: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def cut_connections(self) -> None:
        for connection in list(self.open_sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are the point of these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open_sockets.add(self.request)

    def finish(self) -> None:
        self.server.open_sockets.discard(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        path, query = self.server.owner.path_of(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer, released = self.server.owner.answer(Request(path, query, headers, self.client_address[1]))
        if answer.hold_before_head:
            self.wfile.flush()
            released.wait()
        released.wait(answer.delay_s)
        if answer.status:
            self.send(answer, released)
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def send(self, answer: Answer, released: threading.Event) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.declared is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(answer.declared))
        self.end_headers()
        sent = 0
        for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body:
            if answer.hold_after_bytes is not None and sent + len(chunk) > answer.hold_after_bytes:
                head = chunk[: answer.hold_after_bytes - sent]
                self.wfile.write(head)
                self.wfile.flush()
                released.wait()
                chunk = chunk[len(head) :]  # noqa: PLW2901
                sent += len(head)
            if answer.declared is None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunk else b"")
            else:
                self.wfile.write(chunk)
            sent += len(chunk)
            if answer.drip_s:
                self.wfile.flush()
                released.wait(answer.drip_s)
        if answer.declared is None:
            self.wfile.write(b"0\r\n\r\n")
        elif sent != answer.declared:
            self.close_connection = True
        self.wfile.flush()
