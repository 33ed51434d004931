"""Media types: a body must be what the call takes (415), an answer what the request accepts (406).

What a call takes and gives stands in its route, where the OpenAPI document is made from. A body without a
Content-Type is taken as what the call expects (RFC 9110, 8.3); a refusal is a problem whatever the request accepts.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Request
from fastapi.routing import APIRoute

from oscirc_server.errors import NotAcceptableError, UnsupportedMediaTypeError

JSON = "application/json"
OCTETS = "application/octet-stream"
_MAX_RANGES = 32


def consumed(route: APIRoute) -> tuple[str, ...]:
    """The media types of bodies that a route takes; none for a route without a body."""
    if route.body_field is not None:
        return (JSON,)
    body = (route.openapi_extra or {}).get("requestBody", {})
    return tuple(body.get("content", ()))


def produced(route: APIRoute) -> tuple[str, ...]:
    """The media types of a route's good answers; none where it answers with no content."""
    stated: dict[str, None] = {}
    for status, answer in route.responses.items():
        if str(status).startswith("2"):
            stated |= dict.fromkeys(answer.get("content", ()))
    if stated:
        return tuple(stated)
    return (JSON,) if route.response_model is not None else ()


def _media_range(text: str) -> tuple[str, bool]:
    """A range of an Accept header, and whether it is wanted at all."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    refused = any(part.replace(" ", "").startswith("q=0") and not part.strip("q=0. ") for part in parameters)
    return name, not refused


def accepts(header: str, offered: Iterable[str]) -> bool:
    """Whether an Accept header allows one of these types; the most specific range decides about each."""
    ranges = dict(_media_range(each) for each in header.split(",")[:_MAX_RANGES] if each.strip())
    if not ranges:
        return True
    for media_type in offered:
        kind = media_type.partition("/")[0]
        for candidate in (media_type, f"{kind}/*", "*/*"):
            if candidate in ranges:
                if ranges[candidate]:
                    return True
                break
    return False


def check(request: Request) -> None:
    """A dependency of every route: raise `UnsupportedMediaTypeError` or `NotAcceptableError`."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    taken = consumed(route)
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if taken and given and given not in taken:
        raise UnsupportedMediaTypeError(
            f"the body is of type {given[:80]!r}; this call takes {' or '.join(taken)}", hint="set Content-Type"
        )
    offered = produced(route)
    header = request.headers.get("accept", "")
    if header and offered and not accepts(header, offered):
        raise NotAcceptableError(f"this call answers with {' or '.join(offered)}", hint="set Accept, or leave it out")
