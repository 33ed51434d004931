"""A small forward proxy on loopback, as a site has one: absolute-form requests passed on, CONNECT as a tunnel.

It passes bytes as they are and keeps nothing. `login` (`user:password`) is asked for where it is given. `seen` lists
the request lines' targets; a tunnel's is `host:port`, and what goes through it the proxy cannot read.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import select
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class ForwardProxy:
    """Serves from entering until leaving."""

    def __init__(self, login: str = "") -> None:
        self.expected = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self.seen: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    owner: ForwardProxy


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002
        pass

    def is_refused(self) -> bool:
        owner = self.server.owner
        owner.seen.append(self.path)
        refused = self.headers.get("Proxy-Authorization", "") != owner.expected
        if refused:
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return refused

    def do_GET(self) -> None:
        if self.is_refused():
            return
        parts = urlsplit(self.path)
        passed_on = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        onward = http.client.HTTPConnection(parts.netloc, timeout=20)
        with contextlib.closing(onward):
            onward.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=passed_on)
            answer = onward.getresponse()
            body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        if self.is_refused():
            return
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port)), timeout=20) as far:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: far, far: self.connection}
            while True:
                for near in select.select(list(ends), [], [], 20)[0]:
                    data = near.recv(65536)
                    if not data:
                        return
                    ends[near].sendall(data)
