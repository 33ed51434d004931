"""A plain nginx on loopback that serves one directory, and what it was asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from .commands import end

_CONFIGURATION = """
{user}
worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/error.log warn;
events {{ worker_connections 512; }}
http {{
  log_format asked '$status $body_bytes_sent "$http_range" $uri';
  access_log {work}/access.log asked;
  client_body_temp_path {work}; proxy_temp_path {work}; fastcgi_temp_path {work}; uwsgi_temp_path {work};
  scgi_temp_path {work};
  default_type application/octet-stream; keepalive_requests 10000;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@dataclass(frozen=True)
class Asked:
    """One request, as nginx logged it when it had ended."""

    status: int
    sent_bytes: int
    byte_range: str
    path: str


@dataclass(frozen=True)
class Nginx:
    work: Path
    port: int

    def asked(self, prefix: str = "/") -> list[Asked]:
        found = []
        for line in (self.work / "access.log").read_text().splitlines():
            status, sent, byte_range, path = line.split(" ", 3)
            if path.startswith(prefix):
                found.append(Asked(int(status), int(sent), byte_range.strip('"').removeprefix("-"), path))
        return found

    def forget(self) -> None:
        os.truncate(self.work / "access.log", 0)


@contextlib.contextmanager
def nginx(root: Path, work: Path, port: int) -> Iterator[Nginx]:
    """Until the block ends, on this port. The program must be there: set-up installs it."""
    work.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (work / "nginx.conf").write_text(_CONFIGURATION.format(user=user, work=work, port=port, root=root))
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "no nginx: run make setup"
    process = subprocess.Popen([program, "-c", work / "nginx.conf", "-p", work, "-e", work / "error.log"])
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            assert process.poll() is None, (work / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not answer"
        served = Nginx(work, port)
        served.forget()
        yield served
    finally:
        end(process)
