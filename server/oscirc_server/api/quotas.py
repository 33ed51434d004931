"""Quotas: what publishers keep, and how much they may keep."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Administrator, Reader
from oscirc_server.services import pages, quotas, recounting
from oscirc_server.services.quotas import EVERYBODY, Limits, Usage

router = APIRouter(tags=["quotas"])

_Bytes = Annotated[int, Field(ge=0, le=quotas.MAX_LIMIT_BYTES)]


class LimitsDocument(BaseModel):
    """How much may be kept, in bytes; null: no limit."""

    unique_bytes: _Bytes | None = None
    logical_bytes: _Bytes | None = None


class UsageDocument(BaseModel):
    """What a publisher keeps, in bytes, and how much it may.

    `unique_bytes`: distinct blocks and nodes of its versions and open drafts, uncompressed. `logical_bytes`: the data
    of all its versions. `counting`: a deletion has not been counted yet.
    """

    publisher: str
    unique_bytes: int
    logical_bytes: int
    limits: LimitsDocument
    counting: bool


class UsageList(BaseModel):
    """Some of the publishers that keep something, and the limits of whoever has none of its own.

    `next` is the `after` of the following ones, null at the end.
    """

    publishers: list[UsageDocument]
    default: LimitsDocument
    next: str | None


def _limits(limits: Limits) -> LimitsDocument:
    return LimitsDocument(unique_bytes=limits.unique_bytes, logical_bytes=limits.logical_bytes)


def _document(usage: Usage) -> UsageDocument:
    return UsageDocument(
        publisher=usage.publisher,
        unique_bytes=usage.unique_bytes,
        logical_bytes=usage.logical_bytes,
        limits=_limits(usage.limits),
        counting=usage.counting,
    )


@router.get("/quotas")
def list_quotas(
    _principal: Administrator,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> UsageList:
    """What publishers keep, and may keep, by name."""
    with installation.database.read() as session:
        names, place = pages.of_names(recounting.publishers(session), page.after, page.limit)
        found = [_document(quotas.usage(session, name)) for name in names]
        default = _limits(quotas.limits_of(session, EVERYBODY))
    link_next(request, response, place)
    return UsageList(publishers=found, default=default, next=place)


@router.put("/quotas/default", status_code=HTTPStatus.NO_CONTENT, openapi_extra=documented(LimitsDocument))
def set_default_quota(
    principal: Administrator,
    body: Annotated[LimitsDocument, Depends(json_body(LimitsDocument))],
    installation: CurrentInstallation,
) -> None:
    """Limits of every publisher that has none of its own."""
    limits = Limits(body.unique_bytes, body.logical_bytes)
    quotas.set_limits(installation, EVERYBODY, limits, actor=principal.actor)


@router.get("/publishers/{publisher}/quota")
def get_quota(publisher: str, _principal: Reader, installation: CurrentInstallation) -> UsageDocument:
    """What a publisher keeps, and may keep."""
    with installation.database.read() as session:
        return _document(quotas.usage(session, publisher))


@router.put(
    "/publishers/{publisher}/quota", status_code=HTTPStatus.NO_CONTENT, openapi_extra=documented(LimitsDocument)
)
def set_quota(
    publisher: str,
    principal: Administrator,
    body: Annotated[LimitsDocument, Depends(json_body(LimitsDocument))],
    installation: CurrentInstallation,
) -> None:
    """Limits of one publisher; what is there already stays."""
    limits = Limits(body.unique_bytes, body.logical_bytes)
    quotas.set_limits(installation, publisher, limits, actor=principal.actor)


@router.delete("/publishers/{publisher}/quota", status_code=HTTPStatus.NO_CONTENT)
def drop_quota(publisher: str, principal: Administrator, installation: CurrentInstallation) -> None:
    """Let the default limits hold for a publisher."""
    quotas.drop_limits(installation, publisher, actor=principal.actor)
