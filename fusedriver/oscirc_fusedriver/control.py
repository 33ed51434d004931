"""The control socket of a driver: one connection, one JSON line in, one JSON line out.

    {"op": "status"}                          -> {"ok": true, "result": {…MountStatus…}}
    {"op": "fail_reads", "enabled": true}     -> {"ok": true, "result": {"failing": true}}
    {"op": "unmount", "lazy": false}          -> {"ok": true, "result": {"detached": false}}
    {"op": "retry"}                           -> {"ok": true, "result": {"answers": true}}
    {"op": "end_trace"}                       -> {"ok": true, "result": {"reads": 1385, "problem": ""}}
    {"op": "map", "start": 0}                 -> {"ok": true, "result": {…a part of the map of the disk's blocks…}}
    anything else                             -> {"ok": false, "result": {"error", "message", "hint", "exit_code"}}

The socket has mode 0600 in a directory of mode 0700: who can open it is the user himself. Lines and waits are bounded,
so a client that stays silent holds one of a few places for some seconds and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from oscirc_blockstore.errors import LocalError, OscircError, UsageError
from oscirc_fusedriver import failures
from oscirc_fusedriver.socket_address import short_address

log = logging.getLogger(__name__)

MAXIMUM_LINE_BYTES = 4096
_CLIENT_TIMEOUT_S = 5.0
_CLIENTS = 8
_BACKLOG = 64
_READ_BYTES = 65536

Operation = Callable[[dict[str, object]], Awaitable[dict[str, object]]]


def listen(path: Path) -> socket.socket:
    """A listening socket in place of what stood there; raises `LocalError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with short_address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise LocalError(f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


async def serve(listener: socket.socket, operations: dict[str, Operation]) -> None:
    """Answer until cancelled; an answer under way is finished within its time."""
    places = trio.CapacityLimiter(_CLIENTS)

    async def answer(stream: trio.SocketStream) -> None:
        async with stream, places:
            with trio.move_on_after(_CLIENT_TIMEOUT_S) as waiting:
                line = await _receive_line(stream)
            if waiting.cancelled_caught:
                return
            reply = await _carry_out(line, operations)
            with trio.move_on_after(_CLIENT_TIMEOUT_S, shield=True), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(json.dumps(reply).encode() + b"\n")

    await trio.serve_listeners(answer, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


async def _receive_line(stream: trio.SocketStream) -> bytes:
    """Up to a line's end, the end of the stream or the bound; a little of what is too long is read, to answer it."""
    line = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while b"\n" not in line and len(line) <= _READ_BYTES:
            chunk = await stream.receive_some(MAXIMUM_LINE_BYTES)
            if not chunk:
                break
            line += chunk
    return line


async def _carry_out(line: bytes, operations: dict[str, Operation]) -> dict[str, object]:
    try:
        request = _parse(line)
        operation = operations.get(str(request.get("op")))
        if operation is not None:
            return {"ok": True, "result": await operation(request)}
        refusal = UsageError(f"no such operation; there are {', '.join(operations)}")
        return {"ok": False, "result": failures.describe(refusal)}
    except OscircError as error:
        return {"ok": False, "result": failures.describe(error)}
    except Exception as error:
        log.exception("a control request failed unexpectedly")
        return {"ok": False, "result": failures.describe(LocalError(f"unexpected: {error!r}", hint="see its log"))}


def _parse(line: bytes) -> dict[str, object]:
    if len(line) > MAXIMUM_LINE_BYTES:
        raise UsageError(f"a request is at most {MAXIMUM_LINE_BYTES} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("not a JSON line") from None
    if not isinstance(request, dict):
        raise UsageError("not a JSON object")
    return request


def position(request: dict[str, object], name: str) -> int:
    """A member that must be a whole number, not below zero; raises `UsageError`."""
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{name} must be a whole number that is not below zero")
    return value


def flag(request: dict[str, object], name: str, *, default: bool | None = None) -> bool:
    """A member that must be true or false; raises `UsageError`."""
    value = request.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false")
    return value
