"""The audit trail, for administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Administrator
from oscirc_server.clock import date_text
from oscirc_server.services import audit
from oscirc_server.services.audit import AuditFacts, Wanted

router = APIRouter(tags=["administration"])
Seconds = Annotated[int | None, Query(ge=0, lt=1 << 40, description="In seconds since the epoch.")]


class AuditDocument(BaseModel):
    """Who did what to what; `actor` is a token's id, or `local` for a command on the server's own machine."""

    id: int
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, object]


class AuditList(BaseModel):
    """Some rows, the newest first; `next` is the `after` of the following ones, null at the end."""

    entries: list[AuditDocument]
    next: str | None


def _document(facts: AuditFacts) -> AuditDocument:
    return AuditDocument(
        id=facts.id,
        at=date_text(facts.at_s),
        actor=facts.actor,
        action=facts.action,
        subject=facts.subject,
        detail=facts.detail,
    )


@router.get("/audit")
def list_audit(
    _principal: Administrator,
    installation: CurrentInstallation,
    page: CurrentPage,
    request: Request,
    response: Response,
    actor: Annotated[str, Query(max_length=80)] = "",
    action: Annotated[str, Query(max_length=40)] = "",
    subject: Annotated[str, Query(max_length=255, description="Its beginning.")] = "",
    since: Seconds = None,
    until: Seconds = None,
) -> AuditList:
    """Who changed what, the newest first. Rows are only ever added."""
    wanted = Wanted(actor, action, subject, since, until)
    with installation.database.read() as session:
        rows, place = audit.page(session, wanted, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return AuditList(entries=[_document(row) for row in rows], next=place)
