"""What pages behind the login share: who is logged in, refusals as pages, a word after a form, nothing kept by caches.

- `Member` is the dependency of every such page: who is not logged in is sent to the login. What a member may do is
  decided by his `Principal`, the same as that of a token, and by the services that the REST API calls.
- A form's answer is a redirect (303) to a page; `?said=` names one of the sentences in `SAID`, never a text, so that
  nobody can put words into our mouth by a link.
- `InnerRoute` answers an error of the tree with a page of its status, and marks every answer `no-store`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from oscirc_blockstore.errors import OscircError
from oscirc_server.api.context import installation_of
from oscirc_server.api.problems import NO_STORE, status_of
from oscirc_server.errors import TooManyRequestsError, UnauthenticatedError
from oscirc_server.services.authority import ADMIN, Principal
from oscirc_server.web import protection, rendering
from oscirc_server.web.protection import Visitor

SAID: Final = {
    "abandoned": "The draft was abandoned.",
    "revoked": "The token was revoked.",
    "saved": "Saved.",
    "added": "Added.",
    "removed": "Removed.",
    "retried": "The job waits again.",
    "cancelled": "The job was cancelled.",
}


def member(visitor: Visitor) -> Principal:
    """Who is logged in, or `UnauthenticatedError`."""
    if visitor is None:
        raise UnauthenticatedError("this page needs a login")
    return visitor


Member = Annotated[Principal, Depends(member)]
"""A parameter of a page behind the login: who is logged in."""


def administrator(principal: Member) -> Principal:
    """Who is logged in, if he is an administrator."""
    principal.require_admin()
    return principal


PAGE_ROWS: Final = 50
Place = Annotated[str, Query(max_length=200)]
"""A parameter of a page with a list: after which entry it begins; empty for the first page."""

Administrator = Annotated[Principal, Depends(administrator)]
"""A parameter of a page for administrators."""


def up_of(request: Request) -> str:
    """From this page's address to the repository's own."""
    path: str = request.scope["path"]
    return "../" * (path.count("/") - 1)


def common(session: Session, request: Request, principal: Principal | None) -> dict[str, object]:
    """What every page behind the login is told."""
    said = SAID.get(request.query_params.get("said", ""), "")
    return {
        **rendering.common(session, request, up_of(request)),
        "form_key": protection.field_of(protection.cookie_of(request)),
        "principal": principal,
        "is_admin": principal is not None and principal.may(ADMIN),
        "said": said,
    }


def done(where: str, said: str) -> Response:
    """After a form: to a page, relative to this one, with one of the sentences."""
    return protection.see_other(f"{where}?said={said}")


def _refusal(request: Request, error: OscircError) -> HTMLResponse:
    with installation_of(request).database.read() as session:
        values = common(session, request, protection.visitor(request))
    status = status_of(error)
    title = HTTPStatus(status).phrase
    answer = rendering.page("refused.html", {**values, "refusal": str(error), "hint": error.hint, "title": title})
    answer.status_code = status
    if isinstance(error, TooManyRequestsError):
        answer.headers["Retry-After"] = str(int(error.retry_after_s) + 1)
    return answer


class InnerRoute(APIRoute):
    """A page behind the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Refusals become pages; failures of the server stay problems."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except UnauthenticatedError:
                response = protection.see_other(f"{up_of(request)}login")
            except OscircError as error:
                if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                response = await run_in_threadpool(_refusal, request, error)
            response.headers["Cache-Control"] = NO_STORE
            return response

        return answer
