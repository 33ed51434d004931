"""What a server says when it refuses (RFC 9457 problems), made into errors of our tree with the server's own words.

A server may say that the caller, a name, a signature or some bytes are at fault; its error then is ours of that class.
That the network or this machine is at fault is for us to judge: everything else is a `ServerRefusedError`, which also
stands for every conflict (409), since those are for the caller to act on; a conflict that passes by itself says when to
ask again (`Retry-After`), and is asked again. Words are made printable and short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from oscirc_blockstore import errors
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NotFoundError,
    NotServedError,
    OscircError,
    ServerRefusedError,
)

MAX_PROBLEM_BYTES = 64 << 10
_MAX_WORDS = 1000
_MAX_RETRY_AFTER_S = 30.0
_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE, _SERVER_ERROR = 401, 403, 404, 409, 410, 500

# What a server may make of its refusal. Transport and local errors are ours to judge.
_TRANSLATED: Mapping[str, type[OscircError]] = MappingProxyType(
    {
        kind.__name__: kind
        for branch in (errors.UsageError, errors.NotFoundError, errors.TrustError, errors.IntegrityError)
        for kind in (branch, *branch.__subclasses__())
        if kind.__module__ == errors.__name__  # a server in the same process has leaves of its own
    }
)


def parse_object(raw: bytes) -> dict[str, object]:
    """The JSON object in an answer, or `DocumentRefusedError`."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise DocumentRefusedError("the server's answer is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentRefusedError("the server's answer is not a JSON object")
    return document


def printable(text: object) -> str:
    """A stranger's words without what a terminal would obey, shortened."""
    return "".join(c if c.isprintable() else " " for c in str(text)[:_MAX_WORDS])


def refusal(status: int, raw: bytes, retry_after: str = "") -> OscircError:
    """The error that an API answer of this status (400 or above) and body means."""
    try:
        problem = parse_object(raw)
    except DocumentRefusedError:
        problem = {}
    words = printable(problem.get("detail") or problem.get("title") or "no reason given")
    message = f"the server refuses: {words}"
    hint = printable(problem.get("hint") or "")
    kind = _TRANSLATED.get(str(problem.get("type", "")))
    if kind is not None and status < _SERVER_ERROR and status != _CONFLICT:
        return kind(message, hint=hint)
    if status == _NOT_FOUND:
        return NotFoundError(message, hint=hint)
    if status in (_UNAUTHORISED, _FORBIDDEN):
        hint = hint or "is the token right, and for this publisher? oscirc login"
    if retry_after.isdecimal():
        problem["retry_after"] = min(float(retry_after), _MAX_RETRY_AFTER_S)
    refused = ServerRefusedError(f"{message} (status {status})", status=status, problem=problem, hint=hint)
    if status == _CONFLICT and "retry_after" in problem:
        refused.retryable = True
    return refused


def not_served(status: int, where: str) -> OscircError:
    """The error of a static file that was not given."""
    if status in (_NOT_FOUND, _GONE):
        return NotServedError(f"{where} is not there")
    return ServerRefusedError(f"{where} is refused with status {status}", status=status)
