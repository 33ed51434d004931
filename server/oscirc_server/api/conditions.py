"""Conditions of a change: `If-Match` (only while the caller's validator is current), `If-None-Match: *` (only if new).

They are compared strongly (RFC 9110, 13.1.1). Where a race would matter they are judged in the transaction that makes
the change, by a `Precondition` that the service calls with the current validator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header

from oscirc_server.errors import PreconditionFailedError

Precondition = Callable[[str], None]
"""Given the current validator (empty: there is nothing), returns or raises `PreconditionFailedError`."""

_MAX_CHARS = 1000


def _condition(
    if_match: Annotated[
        str | None, Header(max_length=_MAX_CHARS, description="Only while one of these validators is current.")
    ] = None,
    if_none_match: Annotated[
        str | None, Header(max_length=_MAX_CHARS, description="`*`: only if there is nothing yet.")
    ] = None,
) -> Precondition:
    def check(current: str) -> None:
        if if_match is not None:
            wanted = [tag.strip() for tag in if_match.split(",")]
            if not current or (current not in wanted and wanted != ["*"]):
                raise PreconditionFailedError(
                    "it has changed since (If-Match)", hint="read it again, and make the change to that"
                )
        if if_none_match is not None and current:
            unwanted = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
            if "*" in unwanted or current in unwanted:
                raise PreconditionFailedError("it is there already (If-None-Match)")

    return check


CurrentCondition = Annotated[Precondition, Depends(_condition)]
"""A parameter of a route that changes something: what the request's headers demand."""
