"""An ASGI application behind a blocking httpx client, with its lifespan and without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.types import ASGIApp


class AppTransport(httpx.BaseTransport):
    """Runs each request to its end in the portal's event loop."""

    def __init__(self, portal: BlockingPortal, app: ASGIApp, address: str = "127.0.0.1") -> None:
        self._portal = portal
        self._app = app
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1234))

    def seen_from(self, address: str) -> AppTransport:
        """The same application, for a client at another address."""
        return AppTransport(self._portal, self._app, address)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._handle, request.method, request.url, list(request.headers.raw), request.read())

    async def _handle(self, method, url, headers, body):
        answer = await self._inner.handle_async_request(
            httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body))
        )
        return httpx.Response(answer.status_code, headers=answer.headers.raw, content=await answer.aread())


def client_at(address: str, http: httpx.Client) -> httpx.Client:
    """Another client of the same application, at another address."""
    return httpx.Client(transport=http._transport.seen_from(address), base_url=http.base_url)


@contextlib.contextmanager
def client_of(app: ASGIApp, base_url: str = "http://repository.test") -> Iterator[httpx.Client]:
    """The application started; it is stopped when the block ends."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_lifespan(app)),
        httpx.Client(transport=AppTransport(portal, app), base_url=base_url) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def _lifespan(app: ASGIApp):
    incoming: asyncio.Queue = asyncio.Queue()
    outgoing: asyncio.Queue = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, incoming.get, outgoing.put))
    await incoming.put({"type": "lifespan.startup"})
    assert (await outgoing.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await incoming.put({"type": "lifespan.shutdown"})
        assert (await outgoing.get())["type"] == "lifespan.shutdown.complete"
        await task
