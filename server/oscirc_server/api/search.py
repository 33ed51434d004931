"""Search with facets: for the catalog, and for whoever builds another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from oscirc_server.api.context import CurrentInstallation, CurrentListing
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.versions import VersionResource, resource
from oscirc_server.services import search
from oscirc_server.services.facets import FACETS
from oscirc_server.services.search import MAX_VALUES, Found, Question, Sort

MAX_TEXT_CHARS = 200
router = APIRouter(tags=["catalog"])


class HitDocument(BaseModel):
    """An image: the version that stands for it, how many versions fit, the newest of them, what boots the image.

    `title` and `summary` are its publisher's words, or empty.
    """

    publisher: str
    image: str
    title: str
    summary: str
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


def _parameters() -> list[Parameter]:
    """A parameter for each facet."""
    return [
        Parameter(
            facet.name,
            Parameter.KEYWORD_ONLY,
            default=[],
            annotation=Annotated[
                list[str], Query(max_length=MAX_VALUES, description=f"{facet.description} Several: any of them.")
            ],
        )
        for facet in FACETS
    ]


def chosen(**values: list[str]) -> Mapping[str, Sequence[str]]:
    """What was chosen of each facet of which something was."""
    return {facet: some for facet, some in values.items() if some}


chosen.__signature__ = Signature(_parameters())  # type: ignore[attr-defined]  # FastAPI goes by this
CurrentChoice = Annotated[Mapping[str, Sequence[str]], Depends(chosen)]
"""A parameter of a route: the chosen values of facets, out of the address."""


@router.get("/search")
def search_images(
    installation: CurrentInstallation,
    listing: CurrentListing,
    choice: CurrentChoice,
    page: CurrentPage,
    request: Request,
    response: Response,
    q: Annotated[str, Query(max_length=MAX_TEXT_CHARS, description="Words, all of them.")] = "",
    sort: Annotated[Sort, Query(description="By name, or the newest release first.")] = "name",
) -> SearchDocument:
    """Images of which a version fits, with what each other choice would give.

    A version counts if it is released, or stands for its image. Every number is one of images.
    """
    with installation.database.read() as session:
        found = search.search(listing, session, Question(q, choice, sort), after=page.after, limit=page.limit)
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
                title=hit.title,
                summary=hit.summary,
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
