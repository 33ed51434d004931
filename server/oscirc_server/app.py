"""The application: the static tree first, then the API and the pages, with the upkeep running beside them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oscirc_server.admission import Admission
from oscirc_server.api import accelerators, drafts, health, images, problems, publishers, roles, tokens
from oscirc_server.api.context import Context, attach
from oscirc_server.initialising import API_PATH
from oscirc_server.installation import Installation
from oscirc_server.resigning import keep_up
from oscirc_server.services import fleet
from oscirc_server.services.uploads import Uploader
from oscirc_server.static import StaticTree
from oscirc_server.web import pages

API_PREFIX = f"/{API_PATH}"

_log = logging.getLogger("oscirc_server.requests")


class Site:
    """What the server runs: tells files of the tree from everything else, and logs the latter."""

    def __init__(self, tree: ASGIApp, rest: ASGIApp) -> None:
        self._tree = tree
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; files do not pass through the framework, which costs more than reading them."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
        elif StaticTree.serves(scope["path"]):
            await self._tree(scope, receive, send)
        else:
            await self._logged(scope, receive, send)

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", problems.NO_STORE)
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._rest(scope, receive, send_marked)
        finally:
            facts = {"method": scope["method"], "path": scope["path"][:200], "status": status}
            quiet = scope["path"].startswith(f"{API_PREFIX}/health/")
            milliseconds = int((time.monotonic() - started) * 1000)
            _log.log(logging.DEBUG if quiet else logging.INFO, "request", extra={**facts, "ms": milliseconds})


def create_app(installation: Installation) -> ASGIApp:
    """The application over an installation, which the caller opens, reconciles and closes."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        uploader = Uploader(installation)
        sharing = Admission(fleet.EACH_NETWORK, fleet.ALL_NETWORKS, installation.clock())
        attach(app, Context(installation, uploader, sharing))
        stop = asyncio.Event()
        upkeep = asyncio.create_task(keep_up(installation, stop))
        try:
            yield
        finally:
            stop.set()
            await upkeep
            await asyncio.to_thread(uploader.close)

    app = FastAPI(
        title="oscirc",
        lifespan=lifespan,
        docs_url=None,  # the pages of it load scripts from elsewhere
        redoc_url=None,
        openapi_url=f"{API_PREFIX}/openapi.json",
        redirect_slashes=False,
    )
    problems.install(app)
    api = APIRouter(prefix=API_PREFIX)
    for module in (drafts, publishers, roles, images, accelerators, tokens, health):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(pages.router)
    return Site(StaticTree(installation.storage), app)
