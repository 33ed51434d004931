"""Publishers: who they are, and roles of theirs that bring no new disk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.conditions import CurrentCondition
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.document import refusals
from oscirc_server.api.drafts import MAX_ROLE_BODY_BYTES, ReleaseDocument, RoleOffer
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Caller
from oscirc_server.clock import date_text
from oscirc_server.services import catalog, job_presence, releases, role_metadata
from oscirc_server.services.authority import Principal
from oscirc_server.services.catalog import PublisherFacts

router = APIRouter(prefix="/publishers", tags=["publishers"])


class PublisherDocument(BaseModel):
    """A publisher; `expires` is null until it has signed a role.

    `deltas_made`: from so many versions before what a channel points at delta packs are made unasked, by this server or
    a worker beside it that was there within the last minutes. 0: none.
    """

    name: str
    fingerprints: list[str]
    threshold: int
    role_version: int
    expires: str | None
    images: list[str]
    deltas_made: int


class PublisherList(BaseModel):
    """Some publishers; `next` is the `after` of the following ones, null at the end."""

    publishers: list[PublisherDocument]
    next: str | None


def _document(facts: PublisherFacts, deltas_made: int) -> PublisherDocument:
    return PublisherDocument(
        name=facts.name,
        fingerprints=list(facts.fingerprints),
        threshold=facts.threshold,
        role_version=facts.role_version,
        expires=None if facts.expires_s is None else date_text(facts.expires_s),
        images=list(facts.images),
        deltas_made=deltas_made,
    )


@router.get("")
def list_publishers(
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> PublisherList:
    """Publishers, by name."""
    with installation.database.read() as session:
        found, place = catalog.publisher_page(session, after=page.after, limit=page.limit)
        deltas = job_presence.deltas_made(installation, session)
    link_next(request, response, place)
    return PublisherList(publishers=[_document(facts, deltas) for facts in found], next=place)


@router.get("/{name}")
def get_publisher(name: str, installation: CurrentInstallation) -> PublisherDocument:
    """One publisher."""
    with installation.database.read() as session:
        return _document(catalog.publisher(session, name), job_presence.deltas_made(installation, session))


def _publisher_of_token(name: str, principal: Caller) -> Principal:
    principal.require_publisher(name)
    return principal


@router.put("/{name}/role", openapi_extra=documented(RoleOffer), responses=refusals(409, 412))
def put_role(
    name: str,
    principal: Annotated[Principal, Depends(_publisher_of_token)],
    condition: CurrentCondition,
    body: Annotated[RoleOffer, Depends(json_body(RoleOffer, MAX_ROLE_BODY_BYTES))],
    installation: CurrentInstallation,
) -> ReleaseDocument:
    """Let the publisher's next role take force: channels, yanks, a renewed signature.

    Its version must be the current one plus one (409). `If-Match` is that of `GET roles/{role}`.
    """
    with installation.database.read() as session:
        condition(role_metadata.current_etag(session, name))
    released = releases.update_role(installation, name, body.role, body.indexes, actor=principal.actor)
    return ReleaseDocument(role_version=released.role_version, snapshot_version=released.snapshot_version)
