"""The serial console: a terminal attached to it, and waiting for what the guest prints.

QEMU serves the console on a socket, one client at a time, and writes all output to the console log whether or not
anybody is attached. Attaching copies in both directions until Ctrl-] is typed or the guest ends. Rules:

- The terminal is in raw mode only inside `attach`, and is restored on every way out that a process can take.
- When standard input is not a terminal nothing is read from it: output is copied until the guest ends.
- A second client is told who holds the console (a lock file) instead of waiting in a queue without a sign.
- A slow reader of our output slows the guest's serial port, never this program's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import termios
import tty
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from pathlib import Path

from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError
from oscirc_vmlaunch import sockets

ESCAPE = b"\x1d"  # Ctrl-]
_CHUNK_BYTES = 4096  # a pipe that polls writable takes this much without blocking (PIPE_BUF)
_POLL_S = 0.05
_TAIL_BYTES = 4096


class Ended(Enum):
    """Why an attachment ended."""

    DETACHED = "detached"
    GUEST_ENDED = "guest ended"


async def attach(
    socket: Path,
    *,
    log: Path | None = None,
    input_descriptor: int = 0,
    output_descriptor: int = 1,
    attached: Callable[[], Awaitable[None]] | None = None,
) -> Ended:
    """Copy between a terminal and the console until Ctrl-] or the guest's end; says which of the two it was.

    With `log` the last part of the output so far is shown first. `attached` is awaited once the connection stands:
    whoever starts a paused guest lets it run there, and misses nothing. BusyError when another client is attached.
    """
    with _only_client(socket), contextlib.ExitStack() as stack:
        reader, writer = await asyncio.open_unix_connection(sock=sockets.connect(socket), limit=_CHUNK_BYTES)
        if log is not None:
            await _write(output_descriptor, tail(log))
        interactive = os.isatty(input_descriptor)
        if interactive:
            stack.enter_context(_raw_mode(input_descriptor))
        stack.enter_context(_ends_on_signal())
        output = asyncio.ensure_future(_copy_output(reader, output_descriptor))
        copies = [output]
        if interactive:
            copies.append(asyncio.ensure_future(_copy_input(input_descriptor, writer)))
        try:
            if attached is not None:
                await attached()
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            await _close(writer)
        for copy in copies:
            if not copy.cancelled():
                copy.result()
        return Ended.GUEST_ENDED if not output.cancelled() else Ended.DETACHED


async def wait_for_text(
    log: Path, pattern: str | re.Pattern[str], *, deadline_s: float, alive: Callable[[], bool] = lambda: True
) -> re.Match[str]:
    """Wait until a console log holds a match, at most `deadline_s` seconds.

    DeadlineExceededError, with the last of the output, when it does not; LocalError as soon as `alive` says that the
    guest is gone.
    """
    expression = re.compile(pattern)
    searched = -1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
            while True:
                running = alive()  # asked before reading: what a guest printed last still counts
                text = _text(log)
                if len(text) != searched and (match := expression.search(text)):
                    return match
                searched = len(text)
                if not running:
                    raise LocalError(f"the guest ended before it printed {expression.pattern!r}{_quoted(log)}")
                await asyncio.sleep(_POLL_S)
    raise DeadlineExceededError(f"the guest did not print {expression.pattern!r} in {deadline_s:g} s{_quoted(log)}")


async def type_text(socket: Path, text: str, *, deadline_s: float = 10.0) -> None:
    """Type into the console as a user would, and return when the guest's serial port has taken all of it.

    What the guest answers stands in the log. DeadlineExceededError when the guest does not read.
    """
    with _only_client(socket):
        reader, writer = await asyncio.open_unix_connection(sock=sockets.connect(socket))
        try:
            async with asyncio.timeout(deadline_s):
                writer.write(text.encode())
                writer.write_eof()
                while await _read(reader):  # QEMU hangs up once it has read everything
                    pass
        except TimeoutError as error:
            raise DeadlineExceededError(f"the guest did not read what was typed in {deadline_s:g} s") from error
        finally:
            await _close(writer)


def tail(log: Path, *, limit_bytes: int = _TAIL_BYTES) -> bytes:
    """The last part of a log, from the start of a line; empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            data = file.read(limit_bytes)
    except FileNotFoundError:
        return b""
    return data if size <= limit_bytes else data.partition(b"\n")[2]


async def _copy_output(reader: asyncio.StreamReader, descriptor: int) -> None:
    while data := await _read(reader):
        await _write(descriptor, data)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_CHUNK_BYTES)
    except ConnectionError:
        return b""


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _copy_input(descriptor: int, writer: asyncio.StreamWriter) -> None:
    while True:
        await _ready(descriptor, for_writing=False)
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except OSError:  # the terminal is gone
            return
        before, escape, _ = data.partition(ESCAPE)
        writer.write(before)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        if escape or not data:
            return


async def _write(descriptor: int, data: bytes) -> None:
    while data:
        await _ready(descriptor, for_writing=True)
        data = data[os.write(descriptor, data[:_CHUNK_BYTES]) :]


async def _ready(descriptor: int, *, for_writing: bool) -> None:
    """Wait until a read or write does not block; plain files, which cannot be polled, are always ready."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (loop.add_writer, loop.remove_writer) if for_writing else (loop.add_reader, loop.remove_reader)
    try:
        add(descriptor, ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        remove(descriptor)


@contextlib.contextmanager
def _raw_mode(descriptor: int) -> Iterator[None]:
    saved = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(descriptor, termios.TCSANOW, saved)


@contextlib.contextmanager
def _ends_on_signal() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into a cancellation of this task, so that the terminal is restored."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - there is one in every coroutine
    added: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: signals are not ours
            loop.add_signal_handler(number, task.cancel)
            added.append(number)
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _only_client(socket: Path) -> Iterator[None]:
    path = socket.with_name(f"{socket.name}.lock")
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(20) or "unknown"
            raise BusyError(f"process {holder} is attached to this console", hint="Ctrl-] detaches it") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _text(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _quoted(log: Path) -> str:
    text = tail(log, limit_bytes=1000).decode(errors="replace").strip()
    return f"; it ended with:\n{text}" if text else "; it printed nothing"
