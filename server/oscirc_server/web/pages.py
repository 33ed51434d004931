"""The pages: the list of images, and one image with all its versions.

Everything shown comes from publishers and is escaped; the pages' policy allows a stylesheet of this server and
nothing else. Links are relative, so that a front server may put the repository under any path.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session

from oscirc_blockstore import repository_facts
from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.repository_facts import TARGET
from oscirc_server import repository
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.database import get_fact
from oscirc_server.initialising import PUBLIC_URL
from oscirc_server.models import Document
from oscirc_server.services import catalog
from oscirc_server.status import remote_url
from oscirc_server.tree_paths import target_path

_POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_ROUND_FROM = 10

router = APIRouter(include_in_schema=False)


def human_size(size: int) -> str:
    """`1.5 GiB`, `291 MiB`: two digits where they say something."""
    value, unit = float(size), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    digits = 1 if unit and value < _ROUND_FROM else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


_environment = Environment(
    loader=PackageLoader("oscirc_server.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["size"] = human_size


def _repository_name(session: Session) -> str:
    targets = repository.current_targets(session).signed
    document = session.get(Document, target_path(TARGET, parse_hex(targets.targets[TARGET].hashes["sha256"])))
    try:
        return "oscirc" if document is None else repository_facts.parse(document.raw).name
    except DocumentRefusedError:
        return "oscirc"


def _common(session: Session, request: Request, up: str) -> dict[str, object]:
    name = _repository_name(session)
    local_name = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:63] or "repository"
    return {
        "repository": name,
        "remote": remote_url(session, get_fact(session, PUBLIC_URL) or str(request.base_url)),
        "local_name": local_name,
        "up": up,
    }


def _page(template: str, values: dict[str, object]) -> HTMLResponse:
    return HTMLResponse(_environment.get_template(template).render(values), headers=_HEADERS)


@router.api_route("/", methods=["GET", "HEAD"])
def catalog_page(
    request: Request,
    installation: CurrentInstallation,
    q: Annotated[str, Query(max_length=catalog.MAX_QUERY_CHARS)] = "",
    after: Annotated[str, Query(max_length=130)] = "",
) -> HTMLResponse:
    """The list of images."""
    with installation.database.read() as session:
        page = catalog.images(session, q, after=after)
        values = _common(session, request, "")
    return _page("catalog.html", {**values, "images": page.images, "after": page.after, "query": q})


@router.api_route("/images/{publisher}/{image}", methods=["GET", "HEAD"])
def image_page(publisher: str, image: str, request: Request, installation: CurrentInstallation) -> HTMLResponse:
    """One image with all its versions."""
    with installation.database.read() as session:
        facts = catalog.image(session, publisher, image)
        values = _common(session, request, "../../")
    return _page("image.html", {**values, "image": facts})


@router.api_route("/assets/style.css", methods=["GET", "HEAD"])
def stylesheet() -> Response:
    """The pages' one stylesheet."""
    text = files("oscirc_server.web").joinpath("style.css").read_text("utf-8")
    return Response(text, media_type="text/css", headers={"Cache-Control": "public, max-age=3600"})
