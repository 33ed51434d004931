"""Idempotency-Key on POST: the same call again gets the first answer again (`services.kept_answers`).

The body is hashed as it passes and held nowhere; an answer is kept before its end is sent, so that whoever got it finds
it again. A key without a token means nothing: the call is refused or open anyway. A long answer is not kept; the calls
that give one (which blocks are missing) change nothing by being made twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oscirc_blockstore.errors import OscircError, UsageError
from oscirc_server.api.context import Context, context_in
from oscirc_server.api.problems import problem_of
from oscirc_server.errors import BodyTooLargeError, KeyReusedError, StalledError
from oscirc_server.services import kept_answers, tokens
from oscirc_server.services.kept_answers import MAX_ANSWER_BYTES, Answer, Kept, Key

MAX_BODY_BYTES = 64 << 20
REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(r"[!-~]{1,200}")
_KEPT_HEADERS = ("content-type", "location")


class IdempotentPosts:
    """Wraps an application below `prefix`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = f"{prefix}/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        text = headers.get("idempotency-key")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if text is None or scheme.lower() != "bearer":
            await self._app(scope, receive, send)
            return
        context = context_in(scope)
        installation = context.installation
        try:
            if not _KEY.fullmatch(text):
                raise UsageError("an Idempotency-Key has 1 to 200 visible characters")
            try:
                principal = await asyncio.to_thread(tokens.authenticate, installation, token.strip())
            except OscircError:
                await self._app(scope, receive, send)  # which refuses it in its own way
                return
            route = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
            key = Key.of(token.strip(), principal.token_id, route, text)
            kept = await asyncio.to_thread(kept_answers.begin, installation, key)
            if kept is not None:
                await _replay(context, receive, send, kept)
                return
        except OscircError as error:
            await problem_of(error)(scope, receive, send)
            return
        call = _Call(context, key, receive, send, has_body=_has_body(headers))
        try:
            await self._app(scope, call.receive, call.send)
        finally:
            if not call.kept:
                await asyncio.shield(asyncio.to_thread(kept_answers.abandon, installation, key))


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _replay(context: Context, receive: Receive, send: Send, kept: Kept) -> None:
    """Send the kept answer, once the body has proved to be the same."""
    hashed, total, more = hashlib.sha256(), 0, True
    stalled_s = context.installation.settings.stalled_body_s
    while more:
        try:
            message = await asyncio.wait_for(receive(), stalled_s)
        except TimeoutError:
            raise StalledError(f"nothing more of the body came for {stalled_s:.0f} s") from None
        if message["type"] == "http.disconnect":
            return
        hashed.update(message.get("body", b""))
        total += len(message.get("body", b""))
        if total > MAX_BODY_BYTES:
            raise BodyTooLargeError(f"the body is longer than {MAX_BODY_BYTES} bytes")
        more = message.get("more_body", False)
    if hashed.digest() != kept.body_hash:
        raise KeyReusedError("this Idempotency-Key was used with another body", hint="take a new key for a new call")
    answer = kept.answer
    headers = {**answer.headers, "content-length": str(len(answer.body)), REPLAYED: "true"}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": answer.body})


class _Call:
    """The first call with a key, under way."""

    def __init__(self, context: Context, key: Key, receive: Receive, send: Send, *, has_body: bool) -> None:
        self._installation, self._key, self._receive, self._send = context.installation, key, receive, send
        self._hashed = hashlib.sha256()
        self._whole = not has_body
        self._held: list[Message] = []
        self._length = 0
        self.kept = False

    async def receive(self) -> Message:
        """A piece of the body, hashed."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._hashed.update(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Hold what belongs to a short success until it is kept; pass everything else."""
        starts = message["type"] == "http.response.start"
        if not starts and not self._held:
            await self._send(message)
            return
        self._held.append(message)
        self._length += len(message.get("body", b""))
        if starts and 200 <= message["status"] < 300:  # noqa: PLR2004
            return
        if not starts and message.get("more_body", False) and self._length <= MAX_ANSWER_BYTES:
            return
        if not starts and self._length <= MAX_ANSWER_BYTES and self._whole:
            await asyncio.to_thread(
                kept_answers.keep, self._installation, self._key, self._hashed.digest(), self._answer()
            )
            self.kept = True
        held, self._held = self._held, []
        for each in held:
            await self._send(each)

    def _answer(self) -> Answer:
        start, *bodies = self._held
        headers = {name: value for name, value in Headers(raw=start["headers"]).items() if name in _KEPT_HEADERS}
        return Answer(start["status"], headers, b"".join(each.get("body", b"") for each in bodies))
