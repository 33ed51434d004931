"""Runs the `oscirc` command as a user would: a process with its own home, bounded in time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PASSPHRASE = "a passphrase for tests"
TIMEOUT_S = 120


# Below those that Linux gives to whoever asks for any, so that no connection is given one of them in the meantime.
_PORTS = range(20000, 32000)
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A free loopback port that no other process of any test run is told, as long as this process lives."""
    while True:
        port = random.choice(_PORTS)
        mine = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                mine.bind(f"\0oscirc-test-port-{port}")  # a name without a file, which ends with this process
                probe.bind(("127.0.0.1", port))
            except OSError:
                mine.close()
                continue
        _reserved.append(mine)
        return port


@dataclass
class Workstation:
    """One user's directories and the commands run with them; `prefix` goes before (`faketime …`, `setpriv …`)."""

    home: Path
    prefix: tuple[str, ...] = ()
    python: str = sys.executable
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in self.directories:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def directories(self) -> list[Path]:
        return [self.home / name for name in ("config", "cache", "data", "run")]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "XDG_DATA_HOME": str(self.home / "data"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "OSCIRC_KEY_PASSPHRASE": PASSPHRASE,
            "PYTHONUNBUFFERED": "1",
            **self.extra,
        }

    def command(self, *arguments: object) -> list[str]:
        return [*self.prefix, self.python, "-m", "oscirc", *map(str, arguments)]

    def run(self, *arguments: object, code: int = 0, timeout: float = TIMEOUT_S, text: str | None = None) -> str:
        """Standard output; asserts the exit code, showing everything when it is another."""
        done = self.attempt(*arguments, timeout=timeout, text=text)
        assert done.returncode == code, (
            f"oscirc {' '.join(map(str, arguments))}: exit {done.returncode}, expected {code}\n"
            f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
        return done.stdout

    def attempt(self, *arguments: object, timeout: float = TIMEOUT_S, text: str | None = None):
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
        )

    def refused(self, *arguments: object, code: int, timeout: float = TIMEOUT_S) -> str:
        """Standard error of a command that must fail with this exit code, without a traceback."""
        done = self.attempt(*arguments, timeout=timeout)
        shown = f"oscirc {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, shown
        assert "Traceback" not in done.stderr, shown
        return done.stderr

    def json(self, *arguments: object, timeout: float = TIMEOUT_S):
        return json.loads(self.run(*arguments, "--json", timeout=timeout))

    def start(self, *arguments: object, **options) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments), env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )


def end(process: subprocess.Popen, timeout: float = 20) -> None:
    """SIGTERM, then SIGKILL, to this very process."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout)
    if process.stdout:
        process.stdout.close()


def wait_for_line(process: subprocess.Popen, text: str, timeout: float = 60) -> str:
    """The first line of the process's standard output that contains `text`; asserts that it comes in time."""
    deadline = time.monotonic() + timeout
    seen = []
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            break
        line = process.stdout.readline()
        if not line:
            break
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} did not appear: {''.join(seen)}")


@dataclass
class Repository:
    """A running `oscirc serve`: `url` with the pin, the administrator's token, directories."""

    directory: Path
    keys: Path
    url: str
    token: str
    port: int
    process: subprocess.Popen | None = None

    @property
    def tree(self) -> Path:
        return self.directory / "tree"


def initialise(operator: Workstation, directory: Path, keys: Path | None = None) -> Repository:
    """`oscirc serve init` on a free port, not yet running."""
    port = free_port()
    arguments = ["--keys", keys] if keys else []
    facts = operator.json("serve", "init", "--data", directory, "--public-url", f"http://127.0.0.1:{port}", *arguments)
    return Repository(directory, keys or directory / "keys", facts["remote_url"], facts["admin_token"], port)


@contextlib.contextmanager
def serving(operator: Workstation, repository: Repository, *options: str, jobs: str = "off") -> Iterator[Repository]:
    """The server as a process, until the block ends. It makes nothing unasked, so that what is listed is what was put."""
    process = operator.start(
        "serve",
        "--data",
        repository.directory,
        "--listen",
        f"127.0.0.1:{repository.port}",
        "--log-level",
        "warning",
        "--jobs",
        jobs,
        *options,
        stdout=subprocess.PIPE,
        text=True,
    )
    repository.process = process
    try:
        wait_for_line(process, "listening on")
        yield repository
    finally:
        end(process)
        repository.process = None


def add_publisher(workstation: Workstation, repository: Repository, publisher: str, remote: str = "test") -> None:
    """Everything a new publisher does once: remote, login, key, delegation."""
    workstation.run("remote", "add", remote, repository.url)
    workstation.run("login", remote, "--token-file", "-", text=repository.token)
    workstation.run("key", "create", publisher)
    public = workstation.home / "data" / "oscirc" / "keys" / f"{publisher}.pub"
    workstation.run("publisher", "add", f"{remote}:{publisher}", public, "--keys", repository.keys)
