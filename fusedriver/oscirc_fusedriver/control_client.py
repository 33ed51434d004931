"""Asks a running driver something over its control socket; synchronous, every wait bounded.

Errors that the driver reports are raised here as what they were there. `NoAnswerError`: nobody answers, which for a
record whose process lives means that the driver starts, ends or hangs.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from oscirc_blockstore.errors import LocalError
from oscirc_fusedriver.failures import restore
from oscirc_fusedriver.records import MountRecord
from oscirc_fusedriver.socket_address import short_address
from oscirc_fusedriver.status import MapPart, MountStatus

TIMEOUT_S = 5.0
_MAXIMUM_ANSWER_BYTES = 1 << 20


class NoAnswerError(LocalError):
    """The driver is not there, or did not answer in time."""


def status(record: MountRecord, *, timeout_s: float = TIMEOUT_S) -> MountStatus:
    """The mount's counters and its reader's status."""
    return MountStatus.from_json(request(record, {"op": "status"}, timeout_s=timeout_s))


def fail_reads(record: MountRecord, *, enabled: bool, timeout_s: float = TIMEOUT_S) -> None:
    """While on, reads that would wait for the network fail at once, the outstanding ones too."""
    request(record, {"op": "fail_reads", "enabled": enabled}, timeout_s=timeout_s)


def retry(record: MountRecord, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether what a read could not have for want of the network can be had now."""
    return bool(request(record, {"op": "retry"}, timeout_s=timeout_s).get("answers"))


def block_map(record: MountRecord, start: int, *, timeout_s: float = TIMEOUT_S) -> MapPart:
    """What the blocks from the position `start` on are."""
    return MapPart.from_json(request(record, {"op": "map", "start": start}, timeout_s=timeout_s))


def end_trace(record: MountRecord, *, timeout_s: float = TIMEOUT_S) -> None:
    """End the recording of reads; its file is whole then, or `LocalError`. `UsageError` where nothing is recorded."""
    problem = request(record, {"op": "end_trace"}, timeout_s=timeout_s).get("problem")
    if problem:
        raise LocalError(str(problem))


def ask_to_unmount(record: MountRecord, *, lazy: bool, timeout_s: float = TIMEOUT_S) -> bool:
    """True when the mount was in use and is detached; raises `BusyError` when it is in use and `lazy` is off."""
    return bool(request(record, {"op": "unmount", "lazy": lazy}, timeout_s=timeout_s).get("detached"))


def request(record: MountRecord, message: dict[str, object], *, timeout_s: float) -> dict[str, Any]:
    """One line each way; the answer's `result`, or the driver's error raised."""
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_s)
            with short_address(record.socket) as address:
                connection.connect(address)
            connection.sendall(json.dumps(message).encode() + b"\n")
            line = _receive(connection, deadline)
        except TimeoutError:
            raise NoAnswerError(
                f"the driver of {record.mountpoint} (pid {record.pid}) did not answer within {timeout_s:g} s"
            ) from None
        except OSError as error:
            raise NoAnswerError(f"the driver of {record.mountpoint} does not answer: {error.strerror}") from None
    if not line:
        raise NoAnswerError(f"the driver of {record.mountpoint} broke off without an answer")
    try:
        answer = json.loads(line)
        ok, result = answer["ok"], dict(answer["result"])
    except (ValueError, TypeError, KeyError):
        raise LocalError(f"the driver of {record.mountpoint} answered nonsense") from None
    if not ok:
        raise restore(result)
    return result


def _receive(connection: socket.socket, deadline: float) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(65536)
        if not chunk:
            break
        line += chunk
        if len(line) > _MAXIMUM_ANSWER_BYTES:
            raise LocalError("the driver's answer is too long")
    return line
