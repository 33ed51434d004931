"""The list of images: words, facets, sort and view in its address; and the newest releases as a feed.

What is counted and found is `services.search`'s; here it becomes links. An empty answer offers the search without one
of its conditions, with the number of images that each gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_server.api.context import CurrentInstallation, CurrentListing
from oscirc_server.api.search import MAX_TEXT_CHARS, CurrentChoice, document
from oscirc_server.clock import date_text
from oscirc_server.services import screenshots, search
from oscirc_server.services.facets import FACETS
from oscirc_server.services.listing import Listing
from oscirc_server.services.search import Found, Question, Sort
from oscirc_server.services.versions import newest_releases
from oscirc_server.web import rendering

View = Literal["cards", "table"]
PAGE_IMAGES: Final = 30
FEED_RELEASES: Final = 50
OPEN_VALUES: Final = 8
MOST_COUNTED: Final = 6
_MAX_PLACE_CHARS = 200
_LABELS: Final = {facet.name: facet.label for facet in FACETS}
_NOT_XML: Final = {0xFFFE: None, 0xFFFF: None}  # all that a publisher's text may hold and XML 1.0 may not

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A state of the list; `link` gives the address of it with something else in it."""

    text: str
    chosen: Mapping[str, Sequence[str]]
    sort: Sort
    view: View

    def link(self, **changes: str) -> str:
        """This list with another sort, view or place; the beginning of it unless a place is given."""
        plain = {"q": self.text, "sort": self.sort, "view": self.view, "after": ""} | changes
        standard = {"q": "", "sort": "name", "view": "cards", "after": ""}
        pairs = [(name, value) for name, value in plain.items() if value != standard[name]]
        pairs += [(facet, value) for facet, values in self.chosen.items() for value in values]
        return f"./?{urlencode(pairs)}" if pairs else "./"

    def without(self, facet: str, value: str) -> Address:
        """The same with one value less."""
        kept = [other for other in self.chosen[facet] if other != value]
        return Address(self.text, {**self.chosen, facet: kept}, self.sort, self.view)

    def without_text(self) -> Address:
        """The same without its words."""
        return Address("", self.chosen, self.sort, self.view)


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that the list was narrowed by, and the list without it; `images` that has, where that was counted."""

    name: str
    value: str
    link: str
    images: int | None


@router.api_route("/", methods=["GET", "HEAD"])
def catalog_page(
    request: Request,
    installation: CurrentInstallation,
    listing: CurrentListing,
    choice: CurrentChoice,
    q: Annotated[str, Query(max_length=MAX_TEXT_CHARS)] = "",
    sort: Sort = "name",
    view: View = "cards",
    after: Annotated[str, Query(max_length=_MAX_PLACE_CHARS)] = "",
) -> Response:
    """The list of images, or the same as JSON."""
    address = Address(q, choice, sort, view)
    with installation.database.read() as session:
        found = search.search(listing, session, Question(q, address.chosen, sort), after=after, limit=PAGE_IMAGES)
        if rendering.wants_json(request):
            return JSONResponse(document(found).model_dump(), headers={"Vary": "Accept"})
        conditions = _conditions(listing, session, address, empty=not found.total)
        values = rendering.common(session, request, "")
        values["pictures"] = screenshots.first_of(session, [Digest(hit.shown.manifest) for hit in found.hits])
    values |= {**_listed(found, address), "conditions": conditions, "today": date_text(installation.clock())[:10]}
    return rendering.page("catalog.html", values)


def _listed(found: Found, address: Address) -> dict[str, object]:
    return {
        "address": address,
        "found": found,
        "query": address.text,
        "facets": [(facet.name, facet.label, found.facets[facet.name]) for facet in FACETS if found.facets[facet.name]],
        "open_values": OPEN_VALUES,
        "next_link": None if found.after is None else address.link(after=found.after),
    }


def _conditions(listing: Listing, session: Session, address: Address, *, empty: bool) -> list[Condition]:
    """What the list is narrowed by; counted is what each of them keeps out where nothing was found, if they are few.

    A count is a search of its own: who sends a hundred conditions must not have a hundred searches made.
    """
    narrowed_by = bool(address.text) + sum(len(values) for values in address.chosen.values())
    counts = empty and narrowed_by <= MOST_COUNTED

    def condition(name: str, value: str, less: Address) -> Condition:
        question = Question(less.text, less.chosen, less.sort)
        images = search.total(listing, session, question) if counts else None
        return Condition(name, value, less.link(), images)

    found = [condition("words", address.text, address.without_text())] if address.text else []
    for facet, values in address.chosen.items():
        found += [condition(_LABELS[facet], value, address.without(facet, value)) for value in values]
    return found


@router.api_route("/feed.atom", methods=["GET", "HEAD"])
def feed(request: Request, installation: CurrentInstallation) -> Response:
    """The newest releases of all images, as Atom (RFC 4287)."""
    with installation.database.read() as session:
        releases = newest_releases(session, FEED_RELEASES)
        values = rendering.common(session, request, "")
        base = str(values["remote"]).partition("#")[0].rstrip("/") + "/"
        body = rendering.text("feed.xml", {**values, "base": base, "releases": releases})
    body = body.translate(_NOT_XML)
    return Response(body, media_type="application/atom+xml", headers={"Cache-Control": "public, max-age=300"})


@router.api_route("/assets/{name}", methods=["GET", "HEAD"])
def asset(name: str) -> Response:
    """The stylesheet and the script, by names that hold their digests."""
    for known, kind in rendering.ASSETS.items():
        if rendering.asset_path(known) == f"assets/{name}":
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
            return Response(rendering.asset(known), media_type=kind, headers=headers)
    return Response("not here\n", 404, media_type="text/plain", headers={"Cache-Control": "no-store"})
