"""Events: what changed for readers, for mirrors, catalogs and notifications."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.clock import date_text
from oscirc_server.services import events
from oscirc_server.services.events import EventFacts, Kind, Wanted

router = APIRouter(tags=["catalog"])


class EventDocument(BaseModel):
    """Something that took force; `subject` is a version's label, a channel's name, or empty."""

    id: int
    at: str
    kind: str
    publisher: str
    image: str
    subject: str
    detail: dict[str, object]


class EventList(BaseModel):
    """Some events; `next` is the `after` of the following ones, null at the end, `last` the newest one's number here.

    Whoever follows asks again later with the highest number that it has seen as `after`.
    """

    events: list[EventDocument]
    next: str | None
    last: int | None


def _document(facts: EventFacts) -> EventDocument:
    return EventDocument(
        id=facts.id,
        at=date_text(facts.at_s),
        kind=facts.kind,
        publisher=facts.publisher,
        image=facts.image,
        subject=facts.subject,
        detail=facts.detail,
    )


@router.get("/events")
def list_events(
    installation: CurrentInstallation,
    page: CurrentPage,
    request: Request,
    response: Response,
    publisher: Annotated[str, Query(max_length=63)] = "",
    image: Annotated[str, Query(max_length=63)] = "",
    kind: Annotated[Kind | None, Query(description="Only of that kind.")] = None,
    order: Annotated[Literal["oldest", "newest"], Query(description="Which come first.")] = "oldest",
) -> EventList:
    """What changed, in the order in which it took force; none is missed by asking for those after the last one."""
    wanted = Wanted(publisher, image, kind or "", newest_first=order == "newest")
    with installation.database.read() as session:
        found, place = events.page(session, wanted, after=page.after, limit=page.limit)
    link_next(request, response, place)
    last = max((event.id for event in found), default=None)
    return EventList(events=[_document(event) for event in found], next=place, last=last)
