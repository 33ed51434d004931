"""nginx with the very files of `deploy/nginx/`: only `local/` is changed, in the places that are a machine's own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from .commands import end, free_port

NGINX = Path(__file__).resolve().parents[2] / "deploy" / "nginx"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Front:
    """Where it is reached, with TLS and without, and where it works."""

    port: int
    plain_port: int
    work: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def log(self) -> list[dict[str, object]]:
        """Every request that has ended, as nginx logged it; each line must be JSON."""
        return [json.loads(line) for line in (self.work / "access.log").read_text().splitlines()]

    def line_of(self, request_id: str) -> dict[str, object]:
        """The one line of a request that was answered."""
        return line_of(self.log, request_id)


def line_of(log: Callable[[], Iterable[dict[str, object]]], request_id: str) -> dict[str, object]:
    """The one line of a request in a log, which is written a moment after the answer."""
    deadline = time.monotonic() + 20
    while not (found := [line for line in log() if line.get("request_id") == request_id]):
        assert time.monotonic() < deadline, f"nothing is logged of {request_id}"
        time.sleep(0.01)
    (line,) = found
    return line


def program() -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, "no nginx: run make setup"
    return found


def local_files(kind: str, changes: Mapping[str, str], work: Path) -> None:
    """The files of a `local/` folder, with these texts replaced; each must be there."""
    local = work / "local"
    local.mkdir()
    left = set(changes)
    for source in sorted((NGINX / kind).iterdir()):
        text = source.read_text()
        for old, new in changes.items():
            left -= {old} if old in text else set()
            text = text.replace(old, new)
        (local / source.name).write_text(text)
    assert not left, f"{kind}/ says nothing of {left}"


def installed(work: Path) -> Path:
    """The configuration's folder in `work`, the files as links to those of the repository."""
    work.mkdir()
    for name in ("nginx.conf", "common", "directory.conf", "bucket.conf"):
        (work / name).symlink_to(NGINX / name)
    return work / "nginx.conf"


def machine_changes(front: Front, server_port: int, tree: Path, pem: Path) -> dict[str, str]:
    return _common(front, pem) | {
        "user www-data;": _user(),
        "/run/nginx.pid": f"{front.work}/nginx.pid",
        "/var/log/nginx/error.log": f"{front.work}/error.log",
        "/var/log/nginx/oscirc.log": f"{front.work}/access.log",
        " buffer=64k flush=5s": "",
        "127.0.0.1:8420": f"127.0.0.1:{server_port}",
        "/var/lib/oscirc/tree": str(tree),
        "/etc/oscirc/tls/certificate.pem": str(pem),
        "/etc/oscirc/tls/key.pem": str(pem),
    }


def compose_changes(front: Front, server_port: int, store_port: int, bucket: str, pem: Path) -> dict[str, str]:
    return _common(front, pem) | {
        "user nginx;": _user(),
        "/var/run/nginx.pid": f"{front.work}/nginx.pid",
        "/dev/stderr": f"{front.work}/error.log",
        "/dev/stdout": f"{front.work}/access.log",
        "server:8420": f"127.0.0.1:{server_port}",
        "server store:8333": f"server 127.0.0.1:{store_port}",
        "$oscirc_store_host store:8333": f"$oscirc_store_host 127.0.0.1:{store_port}",
        "$oscirc_bucket oscirc;": f"$oscirc_bucket {bucket};",
        "/var/cache/nginx/oscirc": f"{front.work}/cache",
        "/run/secrets/tls_certificate": str(pem),
        "/run/secrets/tls_key": str(pem),
    }


def _user() -> str:
    return "user root;" if os.geteuid() == 0 else ""


def _common(front: Front, pem: Path) -> dict[str, str]:
    assert pem.exists()
    return {
        "worker_processes auto;": "worker_processes 2; daemon off;",
        "listen 80;": f"listen 127.0.0.1:{front.plain_port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{front.port} ssl http2;",
        "listen [::]:80;": "",
        "listen [::]:443 ssl http2;": "",
    }


def new_front(work: Path) -> Front:
    return Front(free_port(), free_port(), work)


@contextlib.contextmanager
def running(front: Front, kind: str, changes: Mapping[str, str]) -> Iterator[Front]:
    """Checked by `nginx -t`, which must say nothing else, then run until the block ends."""
    configuration = installed(front.work)
    local_files(kind, changes, front.work)
    with (front.work / "local" / "http.conf").open("a") as file:
        file.writelines(f"{name}_temp_path {front.work}/{name};\n" for name in _TEMPORARY)
    command = [program(), "-c", configuration, "-p", front.work, "-e", front.work / "error.log"]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert not re.search(r"\[(warn|error|crit|emerg)\]", tried.stderr), tried.stderr
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{front.plain_port}/")
                break
            assert process.poll() is None, (front.work / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not answer"
            time.sleep(0.02)
        yield front
    finally:
        end(process)
