"""Search with facets: for the catalog, and for whoever builds another one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.versions import VersionResource, resource
from oscirc_server.services import search
from oscirc_server.services.search import MAX_VALUES, Found, Question, Sort

MAX_TEXT_CHARS = 200
router = APIRouter(tags=["catalog"])


class HitDocument(BaseModel):
    """An image: the version that stands for it, how many versions fit, the newest of them, what boots the image."""

    publisher: str
    image: str
    boot: str
    matches: int
    newest_match: str
    shown: VersionResource


class FacetValueDocument(BaseModel):
    """A value of a facet, and how many images there are if it alone is chosen there, all else kept."""

    value: str
    images: int
    chosen: bool


class SearchDocument(BaseModel):
    """`total` images; `next` is the `after` of the following ones, null at the end."""

    total: int
    images: list[HitDocument]
    facets: dict[str, list[FacetValueDocument]]
    next: str | None


def _values(description: str) -> object:
    return Query(max_length=MAX_VALUES, description=f"{description} Several: any of them.")


@router.get("/search")
def search_images(
    installation: CurrentInstallation,
    page: CurrentPage,
    request: Request,
    response: Response,
    q: Annotated[str, Query(max_length=MAX_TEXT_CHARS, description="Words, all of them.")] = "",
    family: Annotated[list[str], _values("The system's family.")] = [],  # noqa: B006  # FastAPI copies it
    version: Annotated[list[str], _values("The system's version.")] = [],  # noqa: B006
    architecture: Annotated[list[str], _values("The processor.")] = [],  # noqa: B006
    firmware: Annotated[list[str], _values("`bios` or `uefi`.")] = [],  # noqa: B006
    publisher: Annotated[list[str], _values("Who publishes it.")] = [],  # noqa: B006
    sort: Annotated[Sort, Query(description="By name, or the newest release first.")] = "name",
) -> SearchDocument:
    """Images of which a version fits, with what each other choice would give.

    A version counts if it is released, or stands for its image. Every number is one of images.
    """
    chosen = {
        "family": family,
        "version": version,
        "architecture": architecture,
        "firmware": firmware,
        "publisher": publisher,
    }
    with installation.database.read() as session:
        found = search.search(session, Question(q, chosen, sort), after=page.after, limit=page.limit)
    link_next(request, response, found.after)
    return document(found)


def document(found: Found) -> SearchDocument:
    """What was found, as it is answered."""
    return SearchDocument(
        total=found.total,
        images=[
            HitDocument(
                publisher=hit.shown.publisher,
                image=hit.shown.image,
                boot=f"oscirc boot {hit.shown.name}@{hit.newest_match}",
                matches=hit.matches,
                newest_match=hit.newest_match,
                shown=resource(hit.shown, []),
            )
            for hit in found.hits
        ],
        facets={
            facet: [FacetValueDocument(value=each.value, images=each.images, chosen=each.chosen) for each in values]
            for facet, values in found.facets.items()
        },
        next=found.after,
    )
