"""What every answer of the API has: a validator, an answer to conditional requests, HEAD, a word for caches.

- A GET that succeeds carries an ETag: the route's own, else one of its bytes. `If-None-Match` with it is answered 304.
- HEAD is GET without the body.
- `Cache-Control`: the route's own; else `no-store` for whatever a token showed and for refusals, `no-cache` for other
  reads (kept, and asked about each time).

Only short answers are looked into; streams pass as they are, with the validator that their route gave them.
"""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

IS_HEAD = "oscirc.is_head"
"""The key of a scope that tells a route whether its body is not sent anyway."""
NO_STORE = "no-store"
VALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
_HASHED_BYTES = 8 << 20
_FIRST_ERROR = 400
_NOT_MODIFIED_DROPS = ("content-length", "content-type", "content-range", "accept-ranges", "link")


def matches(header: str, etag: str) -> bool:
    """Whether an If-None-Match header names this validator (weak comparison, RFC 9110 13.1.2)."""
    if header.strip() == "*":
        return bool(etag)
    bare = etag.removeprefix("W/")
    return bool(etag) and bare in [tag.strip().removeprefix("W/") for tag in header.split(",")]


class UniformAnswers:
    """Wraps an application below `prefix`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = f"{prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await self._app(scope, receive, _marked(send, VALIDATED if method == "OPTIONS" else NO_STORE))
            return
        request = Headers(scope=scope)
        kept = NO_STORE if "authorization" in request or "cookie" in request else VALIDATED
        answer = _Answer(send, request.get("if-none-match", ""), kept, is_head=method == "HEAD")
        inner = {**scope, "method": "GET", IS_HEAD: method == "HEAD"}  # a copy: the server looks at its own method
        try:
            await self._app(inner, receive, answer.send)
        finally:
            scope.update({name: value for name, value in inner.items() if name not in scope})  # the route, for the log


def _marked(send: Send, word: str) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).setdefault("Cache-Control", word)
        await send(message)

    return marked


class _Answer:
    """One answer to a read, on its way out."""

    def __init__(self, send: Send, if_none_match: str, kept: str, *, is_head: bool) -> None:
        self._send, self._if_none_match, self._kept, self._is_head = send, if_none_match, kept, is_head
        self._start: Message | None = None
        self._bodiless = False

    async def send(self, message: Message) -> None:
        """Take what the application sends."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            start, self._start = self._start, None
            await self._whole(start, message)
        elif not self._bodiless:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        refused = message["status"] >= _FIRST_ERROR
        headers.setdefault("Cache-Control", NO_STORE if refused else self._kept)
        if not refused and "etag" not in headers and int(headers.get("content-length", _HASHED_BYTES)) < _HASHED_BYTES:
            self._start = message  # until its one piece of body is here
            return
        await self._head(message)

    async def _whole(self, start: Message, message: Message) -> None:
        body = message.get("body", b"")
        if start["status"] == 200 and not message.get("more_body"):  # noqa: PLR2004
            MutableHeaders(scope=start)["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        await self._head(start)
        if not self._bodiless:
            await self._send(message)

    async def _head(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        if message["status"] in (200, 206) and matches(self._if_none_match, headers.get("etag", "")):
            message["status"] = 304
            for name in _NOT_MODIFIED_DROPS:
                if name in headers:
                    del headers[name]
            self._bodiless = True
        await self._send(message)
        if self._is_head or self._bodiless:
            self._bodiless = True
            await self._send({"type": "http.response.body", "body": b""})
