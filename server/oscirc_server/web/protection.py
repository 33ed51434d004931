"""Cookies of sessions, and forms that only our own pages can send. Every page that changes something stands on this.

- The cookie is `HttpOnly` and `SameSite=Lax`; with https it is `Secure` and called `__Host-…`, so that no neighbour of
  the server's host can set it. A visitor who is not logged in has one, too: his login form is protected as well.
- A form carries a hash of the cookie (`field_of`), which no other site can know. What the browser says of where the
  request comes from (`Sec-Fetch-Site`, `Origin`) must not contradict.
- `Form` is the dependency of a route that takes one: bounded, judged, and its fields by name.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from oscirc_server.api.bodies import read_body
from oscirc_server.api.context import installation_of
from oscirc_server.database import get_fact
from oscirc_server.errors import RequestRefusedError, ScopeError
from oscirc_server.initialising import PUBLIC_URL
from oscirc_server.installation import Installation
from oscirc_server.services import sessions
from oscirc_server.services.authority import Principal

MAX_FORM_BYTES = 16 * 1024
MAX_FIELDS = 50
FIELD = "form_key"

_NAME = "oscirc_session"
_FORM = "application/x-www-form-urlencoded"


def is_secure(installation: Installation, request: Request) -> bool:
    """Whether the browser speaks https: said by a proxy that is believed, or by the public URL of this very host."""
    if request.url.scheme == "https":
        return True
    with installation.database.read() as session:
        public = urlsplit(get_fact(session, PUBLIC_URL) or "")
    return public.scheme == "https" and public.netloc == request.headers.get("host", "")


def _cookie_name(*, secure: bool) -> str:
    return f"__Host-{_NAME}" if secure else _NAME


def cookie_of(request: Request) -> str:
    """The secret that the browser has, empty when it has none."""
    secure = is_secure(installation_of(request), request)
    return request.cookies.get(_cookie_name(secure=secure), "")[: sessions.MAX_SECRET_CHARS]


def set_cookie(request: Request, response: Response, secret: str) -> None:
    """Give the browser a secret; it forgets it when it is closed, and the server before that."""
    secure = is_secure(installation_of(request), request)
    response.set_cookie(_cookie_name(secure=secure), secret, path="/", secure=secure, httponly=True, samesite="lax")


def new_visitor() -> str:
    """A secret that is no session's: it protects the login form."""
    return secrets.token_urlsafe(32)


def field_of(cookie: str) -> str:
    """What a form of whoever has this cookie carries."""
    return hmac.digest(cookie.encode(), b"oscirc form", hashlib.sha256).hex()


def visitor(request: Request) -> Principal | None:
    """Who is logged in, or None."""
    return sessions.principal_of(installation_of(request), cookie_of(request))


Visitor = Annotated[Principal | None, Depends(visitor)]
"""A parameter of a page: who is logged in, if anybody."""


def see_other(where: str) -> RedirectResponse:
    """After a form: have the browser read a page, relative to this one."""
    return RedirectResponse(where, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})


def _check_origin(request: Request) -> None:
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    foreign = site is not None and site not in ("same-origin", "none")
    if foreign or (origin is not None and _host_of(origin) != request.headers.get("host", "")):
        raise ScopeError("the form was not sent from a page of this server")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no address at all
        return None


async def protected_form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our pages sent, or `ScopeError`."""
    _check_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise RequestRefusedError("that is not a form")
    raw = await read_body(request, MAX_FORM_BYTES)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise RequestRefusedError("the form cannot be read") from None
    fields = dict(pairs)
    cookie = await run_in_threadpool(cookie_of, request)
    given = fields.pop(FIELD, "")
    if not cookie or not hmac.compare_digest(given.encode(), field_of(cookie).encode()):
        raise ScopeError("the form is out of date, or was not sent from a page of this server")
    return fields


Form = Annotated[dict[str, str], Depends(protected_form)]
"""A parameter of a route that takes a form: its fields."""
