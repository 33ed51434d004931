"""Screenshots as pictures for a browser.

Served is what `png.check` judged when it came, under a name that holds its digest, so it can be kept for good. It is a
picture and nothing else: `image/png`, never guessed at, and with a policy under which it could run nothing and load
nothing even if somebody opened it as a page.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from oscirc_server.api.answers import IMMUTABLE, matches
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.services import screenshots

HEADERS: Final = {
    "Cache-Control": IMMUTABLE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.api_route("/screenshots/{address}", methods=["GET", "HEAD"])
def screenshot(address: str, request: Request, installation: CurrentInstallation) -> Response:
    """One picture."""
    raw = screenshots.png(installation, address)
    headers = {**HEADERS, "ETag": f'"{address[:64]}"'}
    if matches(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(raw, media_type="image/png", headers=headers)
