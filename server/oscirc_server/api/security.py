"""Who asks: the bearer token of a request, and what it may do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from oscirc_server.api.context import CurrentInstallation, installation_of
from oscirc_server.errors import UnauthenticatedError
from oscirc_server.requests import ACTOR
from oscirc_server.services import drafts, tokens
from oscirc_server.services.drafts import DraftFacts
from oscirc_server.services.tokens import Principal

_MAX_TOKEN_CHARS = 200


def authenticated(request: Request) -> Principal:
    """The token's holder, or `UnauthenticatedError`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
        raise UnauthenticatedError("this needs a token", hint="store one: oscirc login REMOTE")
    principal = tokens.authenticate(installation_of(request), token)
    request.scope[ACTOR] = principal.token_id  # for the log
    return principal


Caller = Annotated[Principal, Depends(authenticated)]
"""A parameter of a route: whose token the request carries."""


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
