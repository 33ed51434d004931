"""Login, logout, and the account page: what one may do, one's tokens, and new ones."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from oscirc_blockstore.errors import OscircError, UsageError
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.problems import status_of
from oscirc_server.api.security import address_of
from oscirc_server.clock import date_text
from oscirc_server.errors import TooManyRequestsError, UnauthenticatedError
from oscirc_server.installation import Installation
from oscirc_server.services import sessions, tokens
from oscirc_server.services.authority import Principal
from oscirc_server.web import protection, rendering
from oscirc_server.web.inner import PAGE_ROWS, Place
from oscirc_server.web.protection import Form, Visitor

_DAY_S = 86_400
_MAX_DAYS = 3650
_MAX_DAYS_DIGITS = 4
_MAX_NAME_CHARS = 127
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (  # as the other pages', but nothing here runs a script
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}

router = APIRouter(include_in_schema=False)


def _login(request: Request, installation: Installation, *, said: str = "", status: int = HTTPStatus.OK) -> Response:
    cookie = protection.cookie_of(request) or protection.new_visitor()
    with installation.database.read() as session:
        values = rendering.common(session, request, "")
    answer = rendering.page("login.html", {**values, "form_key": protection.field_of(cookie), "said": said})
    answer.status_code = status
    answer.headers.update(_HEADERS)
    protection.set_cookie(request, answer, cookie)
    return answer


@router.get("/login")
def login_page(request: Request, visitor: Visitor, installation: CurrentInstallation) -> Response:
    """Where to log in; whoever is logged in goes to his account."""
    return _login(request, installation) if visitor is None else protection.see_other("account")


@router.post("/login")
def log_in(form: Form, request: Request, installation: CurrentInstallation) -> Response:
    """Begin a session, with a cookie that was never seen before."""
    name, address = form.get("name", "")[:_MAX_NAME_CHARS], address_of(request)
    guessing = context_of(request).guessing
    try:
        guessing.before_password(address, name)
        cookie = protection.cookie_of(request)
        secret = sessions.log_in(installation, name, form.get("password", ""), instead_of=cookie)
    except (UnauthenticatedError, TooManyRequestsError) as error:
        answer = _login(request, installation, said=str(error), status=status_of(error))
        if isinstance(error, TooManyRequestsError):
            answer.headers["Retry-After"] = str(int(error.retry_after_s) + 1)
        return answer
    guessing.right_password(address, name)
    answer = protection.see_other("account")
    protection.set_cookie(request, answer, secret)
    return answer


@router.post("/logout")
def log_out(_form: Form, request: Request, installation: CurrentInstallation) -> Response:
    """End the session, here and in the browser."""
    sessions.log_out(installation, protection.cookie_of(request))
    answer = protection.see_other("login")
    protection.set_cookie(request, answer, protection.new_visitor())
    return answer


def _account(
    request: Request,
    installation: Installation,
    principal: Principal,
    *,
    up: str = "",
    made: str = "",
    said: str = "",
    done: str = "",
    after: str = "",
) -> HTMLResponse:
    now_s = installation.now_s()
    with installation.database.read() as session:
        values = rendering.common(session, request, up)
        shown, place = tokens.visible(session, principal, after=after, limit=PAGE_ROWS, valid_at_s=now_s)
    rows = [
        {
            "id": each.id,
            "name": each.name,
            "account": each.account or "",
            "scopes": ", ".join(each.scopes),
            "expires": "never" if each.expires_s is None else date_text(each.expires_s)[:10],
            "last_used": "never" if each.last_used_s is None else date_text(each.last_used_s),
        }
        for each in shown
    ]
    facts = {
        "form_key": protection.field_of(protection.cookie_of(request)),
        "account": principal.account,
        "scopes": sorted(principal.scopes),
        "tokens": rows,
        "next": place,
        "made": made,
        "said": said,
        "done": done,
    }
    answer = rendering.page("account.html", {**values, **facts})
    answer.headers.update(_HEADERS)
    return answer


@router.get("/account")
def account_page(request: Request, visitor: Visitor, installation: CurrentInstallation, after: Place = "") -> Response:
    """What the visitor may do, and his tokens."""
    return protection.see_other("login") if visitor is None else _account(request, installation, visitor, after=after)


@router.post("/account/password")
def change_password(form: Form, request: Request, visitor: Visitor, installation: CurrentInstallation) -> Response:
    """Another password, by the present one; this login stays, the visitor's others end."""
    if visitor is None:
        return protection.see_other("../login")
    address, guessing = address_of(request), context_of(request).guessing
    try:
        new = form.get("password", "")
        if new != form.get("again", ""):
            raise UsageError("the two new passwords differ")
        guessing.before_password(address, visitor.account or "")
        kept = protection.cookie_of(request)
        sessions.change_password(installation, visitor, form.get("present", ""), new, kept=kept)
    except OscircError as error:
        answer = _account(request, installation, visitor, up="../", said=str(error))
        answer.status_code = status_of(error)
        if isinstance(error, TooManyRequestsError):
            answer.headers["Retry-After"] = str(int(error.retry_after_s) + 1)
        return answer
    guessing.right_password(address, visitor.account or "")
    return _account(request, installation, visitor, up="../", done="Your password was changed; your other logins ended")


@router.post("/account/tokens")
def make_token(form: Form, request: Request, visitor: Visitor, installation: CurrentInstallation) -> Response:
    """Make a token for the visitor's own account; it is shown once, on the page that answers."""
    if visitor is None:
        return protection.see_other("../login")
    try:
        days = form.get("days", "")
        if not (days.isascii() and days.isdigit() and len(days) <= _MAX_DAYS_DIGITS and 1 <= int(days) <= _MAX_DAYS):
            raise UsageError(f"a token lives for 1 to {_MAX_DAYS} days")
        scopes = [form.get("scope", "")]
        _, made = tokens.mint(
            installation, visitor, scopes, form.get("name", ""), int(days) * _DAY_S, account=visitor.account
        )
    except OscircError as error:
        answer = _account(request, installation, visitor, up="../", said=str(error))
        answer.status_code = status_of(error)
        return answer
    return _account(request, installation, visitor, up="../", made=made)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(token_id: str, _form: Form, visitor: Visitor, installation: CurrentInstallation) -> Response:
    """End a token that the visitor may see."""
    if visitor is None:
        return protection.see_other("../../../login")
    tokens.revoke(installation, token_id, actor=visitor.actor, by=visitor)
    return protection.see_other("../../../account")
