"""Request bodies, bounded while they are read: in bytes, and in the time between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from oscirc_server.api.context import installation_of
from oscirc_server.errors import BodyTooLargeError, RequestRefusedError, StalledError

MAX_SMALL_BYTES = 64 * 1024

_Model = TypeVar("_Model", bound=BaseModel)


async def body_chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces; raises `BodyTooLargeError` before or while reading, `StalledError` when nothing comes."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body has {declared} bytes; at most {max_bytes} are allowed")
    stalled_s = installation_of(request).settings.stalled_body_s
    total = 0
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(stalled_s):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise StalledError(f"nothing more of the body came for {stalled_s:.0f} s") from None
        total += len(piece)
        if total > max_bytes:
            raise BodyTooLargeError(f"the body is longer than {max_bytes} bytes")
        if piece:
            yield piece


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body."""
    return b"".join([piece async for piece in body_chunks(request, max_bytes)])


def raw_body(max_bytes: int) -> Callable[[Request], Awaitable[bytes]]:
    """A dependency that gives the body as it is."""

    async def read(request: Request) -> bytes:
        return await read_body(request, max_bytes)

    return read


def json_body(model: type[_Model], max_bytes: int = MAX_SMALL_BYTES) -> Callable[[Request], Awaitable[_Model]]:
    """A dependency that gives the body as a `model`; declare it after whatever settles who asks."""

    async def read(request: Request) -> _Model:
        raw = await read_body(request, max_bytes)
        try:
            return model.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the body"
            raise RequestRefusedError(f"{where}: {first['msg']}") from None

    return read


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of a body that a dependency reads."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def documented_raw(media_type: str) -> dict[str, Any]:
    """The same for a body of bytes."""
    schema = {"type": "object"} if media_type == "application/json" else {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}
