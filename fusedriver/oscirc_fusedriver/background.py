"""Leaves the terminal: runs a function in a process of its own and waits until that says "ready" or why not.

The process is made by two forks and a new session, so it has no terminal and is nobody's child. Until it is ready it
keeps the caller's standard error, so warnings reach the user; then input and output become `/dev/null` and standard
error the log. A pipe carries its pid, then one JSON line: the ready value or the error with its exit code and hint.
A process that dies without a word closes the pipe, and that is reported too.

Forking copies the calling thread only; another one may hold a lock that nobody will ever release in the copy. So
this must be called before any other thread exists, and refuses otherwise; lookups of names that
nobody waits for any more end first.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NoReturn

from oscirc_blockstore.errors import DeadlineExceededError, LocalError, OscircError
from oscirc_fusedriver import failures
from oscirc_fusedriver.processes import ProcessIdentity
from oscirc_remote import name_lookups

_LOG_BYTES = 1 << 20
_MAXIMUM_WORDS_BYTES = 1 << 20
_END_TIMEOUT_S = 5.0
_LAST_INSTANT_S = 5.0
_LOOK_AGAIN_S = 0.001

Announce = Callable[[dict[str, Any]], None]


def run_in_background(body: Callable[[Announce], None], *, log_path: Path, timeout_s: float) -> dict[str, Any]:
    """Run `body(announce)` detached; returns what it announced, raises the error it met before that.

    Raises `DeadlineExceededError` after `timeout_s`. Then, and on an interrupt, the process has been ended.
    """
    name_lookups.LOOKUPS.settle(timeout_s)  # the child must not inherit the locks of one that was left behind
    threads = _threads()
    if threads > 1:
        raise RuntimeError(f"cannot leave the terminal from a process with {threads} threads: fork first")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first == 0:
        _become_driver(body, reading, writing, log_path)
    os.close(writing)
    os.waitpid(first, 0)
    with contextlib.closing(_Words(reading)) as words:
        return words.wait(timeout_s, log_path)


def _threads() -> int:
    """How many this process has, when those that Python has joined are gone for the kernel, too.

    `Thread.join` returns a moment earlier: of lookups that had just ended, a third was still counted on a busy machine.
    """
    until = time.monotonic() + _LAST_INSTANT_S
    while True:
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads == 1 or threading.active_count() > 1 or time.monotonic() > until:
            return threads
        time.sleep(_LOOK_AGAIN_S)


class _Words:
    """The parent's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def close(self) -> None:
        os.close(self._descriptor)

    def wait(self, timeout_s: float, log_path: Path) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        process: ProcessIdentity | None = None
        try:
            process = ProcessIdentity.of(int(self._line(deadline) or 0))
            line = self._line(deadline)
        except BaseException:
            if process is not None:
                process.end(_END_TIMEOUT_S)
            raise
        if not line:
            raise LocalError("the driver ended without a word", hint=f"its last words may be in {log_path}")
        said: dict[str, Any] = json.loads(line)
        if "failure" in said:
            raise failures.restore(said["failure"])
        ready: dict[str, Any] = said["ready"]
        return ready

    def _line(self, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or len(self._buffer) > _MAXIMUM_WORDS_BYTES:
                raise DeadlineExceededError("the driver did not become ready in time")
            if poll.poll(remaining * 1000):
                chunk = os.read(self._descriptor, 65536)
                if not chunk:
                    return b""
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _become_driver(body: Callable[[Announce], None], reading: int, writing: int, log_path: Path) -> NoReturn:
    """In the first child: never returns, and never runs what the caller has put off to its own exit."""
    code = 1
    announced = False

    def say(words: dict[str, Any]) -> None:
        os.write(writing, json.dumps(words).encode() + b"\n")

    def announce(ready: dict[str, Any]) -> None:
        nonlocal announced
        _leave_terminal(log_path)
        say({"ready": ready})
        os.close(writing)
        announced = True

    try:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(writing, b"%d\n" % os.getpid())
        os.chdir("/")
        body(announce)
        code = 0
    except BaseException as error:  # whatever it is, the parent or the log must hear of it
        if announced:
            logging.getLogger(__name__).exception("the driver ends")
        else:
            if not isinstance(error, OscircError):
                traceback.print_exc()
                error = OscircError(f"the driver failed unexpectedly: {error!r}")
            say({"failure": failures.describe(error)})
    finally:
        logging.shutdown()
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)


def _leave_terminal(log_path: Path) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    file = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for number, target in enumerate((null, null, file)):
        os.dup2(target, number)
    os.close(null)
    os.close(file)
    faulthandler.enable(2)
    handler = RotatingFileHandler(log_path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("oscirc_fusedriver").setLevel(logging.INFO)
