"""What all pages share: templates, the policy, links to the stylesheet and the script, what a page is told of itself.

Everything shown comes from publishers and is escaped; the policy allows this server's own style, script and pictures
and nothing inline. Links are relative, so that a front server may put the repository under any path.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import digest_of
from oscirc_server.api.media import JSON, accepts
from oscirc_server.clock import date_text
from oscirc_server.database import get_fact
from oscirc_server.initialising import PUBLIC_URL
from oscirc_server.status import facts_in_force, remote_url
from oscirc_server.web.words import in_words, span

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with `no-referrer` browsers send forms with `Origin: null`, which is refused
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
ASSETS: Final = {"catalog.css": "text/css", "catalog.js": "text/javascript", "icon.svg": "image/svg+xml"}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_ROUND_FROM = 10
_HTML = "text/html"


def human_size(size: int) -> str:
    """`1.5 GiB`, `291 MiB`: two digits where they say something."""
    value, unit = float(size), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    digits = 1 if unit and value < _ROUND_FROM else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def asset(name: str) -> bytes:
    """The stylesheet or the script."""
    return files("oscirc_server.web").joinpath(name).read_bytes()


@cache
def asset_path(name: str) -> str:
    """Where it is served: its name holds its digest, so that it can be kept for good."""
    stem, _, extension = name.rpartition(".")
    return f"assets/{stem}.{digest_of(asset(name)).hex()[:16]}.{extension}"


_environment = Environment(
    loader=PackageLoader("oscirc_server.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["size"] = human_size
_environment.filters["in_words"] = in_words
_environment.filters["span"] = span
_environment.filters["date"] = date_text
_environment.globals["asset_path"] = asset_path


def common(session: Session, request: Request, up: str) -> dict[str, object]:
    """What every page is told; `up` leads from its address to the repository's own."""
    name = repository_name(session)
    local_name = re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:63] or "repository"
    return {
        "repository": name,
        "remote": remote_url(session, get_fact(session, PUBLIC_URL) or str(request.base_url)),
        "local_name": local_name,
        "up": up,
    }


def repository_name(session: Session) -> str:
    """As `repository.json` has it."""
    facts = facts_in_force(session)
    return "oscirc" if facts is None else facts.name


def text(template: str, values: dict[str, object]) -> str:
    """A rendered template."""
    return _environment.get_template(template).render(values)


def page(template: str, values: dict[str, object], status: int = 200) -> HTMLResponse:
    """A page."""
    return HTMLResponse(text(template, values), status, headers=HEADERS)


def wants_json(request: Request) -> bool:
    """Whether who asks wants the facts and no page: JSON is accepted, and HTML is not named."""
    header = request.headers.get("accept", "")
    return bool(header) and _HTML not in header and "*/*" not in header and accepts(header, (JSON,))
