"""An error as one JSON object and back: how a driver process tells another why something failed."""

from __future__ import annotations

import contextlib

from oscirc_blockstore import errors
from oscirc_blockstore.errors import OscircError


def describe(error: OscircError) -> dict[str, object]:
    """`{"error": class name, "message", "hint", "exit_code"}`."""
    return {
        "error": type(error).__name__,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def restore(described: dict[str, object]) -> OscircError:
    """The error again: of its class, or of the nearest ancestor that a message and a hint suffice to make."""
    message = str(described.get("message", "")) or "no reason was given"
    hint = str(described.get("hint", ""))
    found = getattr(errors, str(described.get("error")), None)
    if not (isinstance(found, type) and issubclass(found, OscircError)):
        found = OscircError
    for ancestor in found.__mro__:
        with contextlib.suppress(TypeError):  # one that needs more than these two
            error: OscircError = ancestor(message, hint=hint)
            return error
    return OscircError(message, hint=hint)
