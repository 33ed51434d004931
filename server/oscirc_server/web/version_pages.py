"""The timeline of an image's versions: a short one on the image's page, and all of them page by page.

Read from rows in the order of release, withdrawn and deleted ones with the reason. JSON at the same address is the
REST API's list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from oscirc_blockstore.image_index import ImageIndex
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.versions import VersionList, resource
from oscirc_server.models import VersionRow
from oscirc_server.services import versions
from oscirc_server.web import rendering

SHORT: Final = 12
PAGE: Final = 50
_MAX_PLACE_CHARS: Final = 200

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Some versions, newest first; `place` leads to those before, `first` is the one that had none before it."""

    index: ImageIndex
    rows: list[VersionRow]
    place: str | None
    channels: Mapping[str, list[str]]

    @property
    def first(self) -> str:
        """The label of the oldest version that is still here."""
        return self.index.versions[0].label if self.index.versions else ""


def timeline(session: Session, publisher: str, image: str, *, after: str = "", limit: int = SHORT) -> Timeline:
    """The versions after a place."""
    rows, place = versions.page(session, publisher, image, after=after, limit=limit)
    index = versions.index_of(session, publisher, image)
    return Timeline(index, rows, place, versions.channels_of(index))


@router.api_route("/images/{publisher}/{image}/versions", methods=["GET", "HEAD"])
def versions_page(
    publisher: str,
    image: str,
    request: Request,
    installation: CurrentInstallation,
    after: Annotated[str, Query(max_length=_MAX_PLACE_CHARS)] = "",
) -> Response:
    """All versions of an image, page by page."""
    with installation.database.read() as session:
        found = timeline(session, publisher, image, after=after, limit=PAGE)
        if rendering.wants_json(request):
            listed = [resource(row, found.channels.get(row.label, [])) for row in found.rows]
            document = VersionList(versions=listed, next=found.place)
            return JSONResponse(document.model_dump(), headers={"Vary": "Accept"})
        values = rendering.common(session, request, "../../../")
    facts = {
        "index": found.index,
        "rows": found.rows,
        "place": found.place,
        "channels": found.channels,
        "first": found.first,
        "after": after,
    }
    return rendering.page("versions.html", {**values, **facts})
