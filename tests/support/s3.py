"""A real S3 server on loopback: rclone in front of a directory, whose sub-directories are the buckets.

Who reads an object that was replaced in this moment may be told its old length; rclone then notices ("md5 hashes
differ", "wrote more than the declared Content-Length") and closes the connection, which the next request finds closed.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from .commands import end, free_port

ACCESS_KEY = "tests"
SECRET_KEY = "no secret at all"
# What stands in the directory is seen at once. Where there are writes, rclone 1.75 hangs with such short memories.
_ANONYMOUS = ("--read-only", "--copy-links", "--dir-cache-time", "0", "--poll-interval", "0")


_CONTROL = httpx.Client(verify=False, trust_env=False)  # noqa: S501  # loopback; certificates take 35 ms to load


@dataclass
class S3Server:
    """Where it is; `root/<bucket>/<key>` is an object's file, also for writing, if `notice` is called afterwards."""

    root: Path
    port: int
    control_port: int
    process: subprocess.Popen
    _serial: Iterator[int] = field(default_factory=itertools.count)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the server's process is to find in its environment."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def url(self, bucket: str, prefix: str = "") -> str:
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}"

    def bucket(self, like: str | None = None) -> str:
        """The name of a new bucket, empty or a copy of another."""
        name = f"bucket-{next(self._serial)}"
        if like is None:
            (self.root / name).mkdir()
        else:
            shutil.copytree(self.root / like, self.root / name)
        store = S3Store(
            name,
            config={"endpoint": self.endpoint, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY},
            client_options={"allow_http": True},
        )
        deadline = time.monotonic() + 60
        while True:  # being told once is sometimes not enough
            self.notice()
            with contextlib.suppress(BaseError, FileNotFoundError):
                obstore.list_with_delimiter(store)
                break
            assert time.monotonic() < deadline, "rclone does not see a new bucket"
        return name

    def notice(self) -> None:
        """Let the server see what was changed in the directory past it: it remembers listings for minutes."""
        for call, options in (("forget", {}), ("refresh", {"recursive": "true"})):
            answer = _CONTROL.post(f"http://127.0.0.1:{self.control_port}/vfs/{call}", json=options, timeout=60)
            assert answer.status_code == 200, answer.text


def _program() -> Path:
    """The one that came with the virtual environment: Debian 12's is too old to serve S3."""
    found = Path(sys.executable).parent / "rclone"
    assert found.exists(), "no rclone in the virtual environment: run make setup"
    return found


@contextlib.contextmanager
def s3_server(directory: Path, port: int | None = None, *, anonymous: bool = False) -> Iterator[S3Server]:
    """Until the block ends.

    An `anonymous` one lets everybody read and nobody write, as a bucket that nginx or a CDN stands in front of.
    """
    port = port or free_port()
    root = directory / "buckets"
    root.mkdir(parents=True, exist_ok=True)
    control_port = free_port()
    control = ["--rc", "--rc-no-auth", "--rc-addr", f"127.0.0.1:{control_port}"]
    process = subprocess.Popen(
        [
            _program(),
            "serve",
            "s3",
            root,
            *("--addr", f"127.0.0.1:{port}"),
            *(_ANONYMOUS if anonymous else ("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}")),
            *("--config", directory / "rclone.conf"),
            *control,
            *("--log-level", "ERROR"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            assert process.poll() is None, "rclone did not start"
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.02)
        yield S3Server(root, port, control_port, process)
    finally:
        end(process)
