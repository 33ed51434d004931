"""What every request goes through first: whose it is, its id, its line in the log, its figures.

`X-Forwarded-For`, `X-Forwarded-Proto` and `X-Request-Id` are believed from the proxies that the settings name and from
nobody else. Files of the tree pass by most of it: they are many, and what is in them says nothing of who asked; they
are counted, and logged at `debug` only. A line has the path without its query, and no header: secrets travel in both.
A request that is cut because the server stops gets an answer that says so, where none was begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from oscirc_server import request_ids
from oscirc_server.api.problems import NO_STORE, problem_of
from oscirc_server.errors import StoppingError
from oscirc_server.metrics import UNMATCHED, Metrics

MAX_LOGGED_PATH_CHARS = 200
ACTOR = "oscirc_actor"
"""The key of a request's scope under which `api.security` leaves the id of the token."""

_log = logging.getLogger(__name__)


class _Passage:
    """One request: counts what passes, and remembers the status."""

    __slots__ = ("_receive", "_send", "received_bytes", "sent_bytes", "started", "status")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.started = time.monotonic()
        self.status = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    async def receive(self) -> Message:
        """The client's next message."""
        message = await self._receive()
        self.received_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """The answer's next message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)


class Requests:
    """An ASGI application around the tree (`/<top>/…` for each of `tops`) and the rest."""

    def __init__(
        self,
        tree: ASGIApp,
        rest: ASGIApp,
        metrics: Metrics,
        *,
        tops: Sequence[str],
        api_prefix: str,
        trusted_proxies: str,
    ) -> None:
        self._tree = tree
        self._rest = rest
        self._metrics = metrics
        self._tops = frozenset(tops)
        self._api_prefix = api_prefix
        self._proxies = ProxyHeadersMiddleware(self._counted, trusted_proxies)  # type: ignore[arg-type]  # its own types

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of messages are the rest's."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        peer = scope.get("client")
        told = ""
        if peer is not None and peer[0] in self._proxies.trusted_hosts:
            told = Headers(scope=scope).get(request_ids.HEADER, "")
        request_ids.enter(told if request_ids.is_request_id(told) else None)
        await self._proxies(scope, receive, send)  # type: ignore[arg-type]  # its own types

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage = _Passage(receive, send)
        top = scope["path"][1:].partition("/")[0]
        is_file = top in self._tops
        self._metrics.began()
        try:
            if is_file:
                await self._tree(scope, passage.receive, passage.send)
            else:
                await self._marked(scope, passage)
        except asyncio.CancelledError:  # only a server that stops does that; an answer that was begun is cut
            if not passage.status:
                await problem_of(StoppingError("the server is stopping"))(scope, receive, passage.send)
        finally:
            seconds = time.monotonic() - passage.started
            route = f"/{top}" if is_file else self._template(scope)
            method = scope["method"]
            self._metrics.answered(route, method, passage.status, seconds, passage.received_bytes, passage.sent_bytes)
            level = (
                logging.DEBUG if is_file or scope["path"].startswith(f"{self._api_prefix}/health/") else logging.INFO
            )
            if _log.isEnabledFor(level):
                _log.log(level, "request", extra=_facts(scope, passage, route, seconds))

    def _template(self, scope: Scope) -> str:
        """The matched route's path with its parameters' names; an included router may leave its prefix out."""
        path = getattr(scope.get("route"), "path", None)
        if not isinstance(path, str):
            return UNMATCHED
        lacks_prefix = scope["path"].startswith(f"{self._api_prefix}/") and not path.startswith(self._api_prefix)
        return f"{self._api_prefix}{path}" if lacks_prefix else path

    async def _marked(self, scope: Scope, passage: _Passage) -> None:
        request_id = request_ids.current()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", NO_STORE)
                headers["X-Content-Type-Options"] = "nosniff"
                headers[request_ids.HEADER] = request_id
            await passage.send(message)

        await self._rest(scope, passage.receive, send)


def _facts(scope: Scope, passage: _Passage, route: str, seconds: float) -> dict[str, object]:
    facts: dict[str, object] = {
        "method": scope["method"],
        "path": scope["path"][:MAX_LOGGED_PATH_CHARS],
        "route": route,
        "status": passage.status,
        "ms": int(seconds * 1000),
        "received_bytes": passage.received_bytes,
        "sent_bytes": passage.sent_bytes,
        "client": scope["client"][0] if scope.get("client") else "",
    }
    if ACTOR in scope:
        facts["token"] = scope[ACTOR]
    return facts
