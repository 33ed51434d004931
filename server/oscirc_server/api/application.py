"""The API as an application of its own, before it is given an installation: its routes and what all of them share."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from oscirc_server.api import (
    accelerators,
    accounts,
    audit,
    disks,
    document,
    downloads,
    drafts,
    events,
    health,
    images,
    jobs,
    media,
    metadata,
    oidc,
    problems,
    publishers,
    quotas,
    retention,
    roles,
    search,
    tokens,
    versions,
)
from oscirc_server.api.answers import UniformAnswers
from oscirc_server.api.idempotency import IdempotentPosts
from oscirc_server.initialising import API_PATH

API_PREFIX = f"/{API_PATH}"
MODULES = (
    images,
    search,
    versions,
    events,
    disks,
    downloads,
    accelerators,
    jobs,
    drafts,
    retention,
    publishers,
    roles,
    metadata,
    accounts,
    quotas,
    oidc,
    tokens,
    audit,
    health,
)


def _operation_id(route: APIRoute) -> str:
    return route.name


def build() -> FastAPI:
    """The routes below `/api/v1`; they find what they work on in a request's scope (`context`)."""
    app = FastAPI(
        title=document.TITLE,
        docs_url=None,  # the pages of it load scripts from elsewhere
        redoc_url=None,
        openapi_url=f"{API_PREFIX}/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    problems.install(app)
    api = APIRouter(prefix=API_PREFIX, dependencies=[Depends(media.check)])
    for module in MODULES:
        api.include_router(module.router)
    app.include_router(api)
    app.add_middleware(IdempotentPosts, prefix=API_PREFIX)
    app.add_middleware(UniformAnswers, prefix=API_PREFIX)

    def described() -> dict[str, object]:
        if app.openapi_schema is None:
            app.openapi_schema = document.build(app, [module.router for module in MODULES], API_PREFIX)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way of replacing it
    return app
