"""Who asks: the bearer token of a request, and what it may do.

A parameter of one of these types settles that before anything of the body is read. The API knows no cookies: a browser
cannot be made to use somebody's session here.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.errors import UnauthenticatedError
from oscirc_server.requests import ACTOR
from oscirc_server.services import authority, drafts, tokens
from oscirc_server.services.authority import Principal
from oscirc_server.services.drafts import DraftFacts

_MAX_TOKEN_CHARS = 200


def address_of(request: Request) -> str:
    """Whence a request comes, as the proxies that are believed say."""
    return request.client.host if request.client else ""


def authenticated(request: Request) -> Principal:
    """The token's holder, or `UnauthenticatedError`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
        raise UnauthenticatedError("this needs a token", hint="store one: oscirc login REMOTE")
    context = context_of(request)
    try:
        principal = tokens.authenticate(context.installation, token)
    except UnauthenticatedError:
        context.guessing.failed_token(address_of(request))
        raise
    request.scope[ACTOR] = principal.token_id  # for the log
    return principal


Caller = Annotated[Principal, Depends(authenticated)]
"""A parameter of a route: whose token the request carries."""


def optional(request: Request) -> Principal | None:
    """The token's holder, None without a token; one that is no good is refused all the same."""
    return authenticated(request) if "authorization" in request.headers else None


OptionalCaller = Annotated[Principal | None, Depends(optional)]
"""A parameter of a route that shows more to whom a token lets see it."""


def administrator(principal: Caller) -> Principal:
    """The token's holder, if it is an administrator."""
    principal.require_admin()
    return principal


Administrator = Annotated[Principal, Depends(administrator)]
"""A parameter of a route: an administrator."""


def own_draft(draft_id: str, principal: Caller, installation: CurrentInstallation) -> DraftFacts:
    """The draft in the path, if the token may publish as its publisher."""
    draft = drafts.get(installation, draft_id)
    principal.require_publisher(draft.publisher)
    return draft


OwnDraft = Annotated[DraftFacts, Depends(own_draft)]
"""A parameter of a route: a draft that the caller may work on."""


def manager_of(publisher: str, principal: Caller) -> Principal:
    """The token's holder, if it may manage the publisher in the path."""
    principal.require(authority.MANAGE, publisher)
    return principal


Manager = Annotated[Principal, Depends(manager_of)]
"""A parameter of a route with `{publisher}` in its path: who may manage it."""


def reader_of(publisher: str, principal: Caller) -> Principal:
    """The token's holder, if it may look into the publisher in the path."""
    principal.require(authority.READ, publisher)
    return principal


Reader = Annotated[Principal, Depends(reader_of)]
"""A parameter of a route with `{publisher}` in its path: who may see what is not public of it."""
