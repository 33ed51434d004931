"""The application: the static tree first, then the API and the pages, with the upkeep running beside them.

Routes know no installation: each request brings the context of the application that serves it. So all applications of
a process share them, and they are made once, which takes a quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from oscirc_server.admission import Admission
from oscirc_server.api import application
from oscirc_server.api.application import API_PREFIX
from oscirc_server.api.context import Context, attach
from oscirc_server.direct_reads import DirectReads
from oscirc_server.installation import Installation
from oscirc_server.issuer_keys import IssuerKeys
from oscirc_server.job_worker import JobWorkers
from oscirc_server.metrics import Metrics
from oscirc_server.metrics_of_state import StateCollector
from oscirc_server.mirror_probes import MirrorProbes
from oscirc_server.requests import Requests
from oscirc_server.resigning import keep_collected, keep_up
from oscirc_server.services import fleet
from oscirc_server.services.figures import CountedFigures
from oscirc_server.services.guessing import Guessing
from oscirc_server.services.listing import Listing
from oscirc_server.services.uploads import Uploader
from oscirc_server.static import StaticTree
from oscirc_server.tree_paths import TOP
from oscirc_server.web import (
    account,
    admin_accounts,
    admin_views,
    catalog_pages,
    image_pages,
    publisher_pages,
    screenshot_pages,
    status_page,
    update_pages,
    version_pages,
)

_OPEN = (catalog_pages, image_pages, screenshot_pages, update_pages, version_pages, status_page)
PAGES = (*_OPEN, account, publisher_pages, admin_accounts, admin_views)


@functools.cache
def _routes() -> FastAPI:
    app = application.build()
    for pages in PAGES:
        app.include_router(pages.router)
    return app


class _Served:
    """The routes, for requests to one installation, while `attended` lasts."""

    def __init__(self, attended: Callable[[], AbstractAsyncContextManager[Context]]) -> None:
        self.routes = _routes()
        self.context: Context | None = None

        @contextlib.asynccontextmanager
        async def lifespan(_router: Router) -> AsyncIterator[None]:
            async with attended() as self.context:
                yield

        self._life = Router(lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._life(scope, receive, send)
            return
        attach(scope, self.context)
        await self.routes(scope, receive, send)


def create_app(installation: Installation, metrics: Metrics | None = None) -> ASGIApp:
    """The application over an installation, which the caller opens, reconciles and closes."""
    counted = metrics or Metrics()
    counted.registry.register(StateCollector(installation))

    @contextlib.asynccontextmanager
    async def attended() -> AsyncIterator[Context]:
        uploader = Uploader(installation, counted.uploaded)
        sharing = Admission(fleet.EACH_NETWORK, fleet.ALL_NETWORKS, installation.clock())
        keys = IssuerKeys(installation.clock)
        figures, mirrors = CountedFigures(installation), MirrorProbes(installation)
        context = Context(
            installation,
            uploader,
            sharing,
            Guessing(installation),
            keys,
            counted,
            figures,
            mirrors,
            Listing(installation.clock),
            installation.now_s(),
        )
        stop = asyncio.Event()
        upkeep = asyncio.gather(keep_up(installation, stop), keep_collected(installation, stop), mirrors.run(stop))
        workers = JobWorkers(installation)
        workers.start()
        try:
            yield context
        finally:
            stop.set()
            await asyncio.to_thread(workers.stop)
            await upkeep
            await asyncio.to_thread(uploader.close)

    return Requests(
        StaticTree(installation.storage, DirectReads.parse(installation.storage, installation.settings.direct_reads)),
        _Served(attended),
        counted,
        tops=TOP,
        api_prefix=API_PREFIX,
        trusted_proxies=installation.settings.trusted_proxies,
    )
