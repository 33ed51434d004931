"""Bearer tokens: an administrator's, those of one's own account, and those of the robots that one manages."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.document import refusals
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Caller
from oscirc_server.clock import date_text
from oscirc_server.services import tokens
from oscirc_server.services.tokens import TokenFacts

router = APIRouter(prefix="/tokens", tags=["administration"])


class NewToken(BaseModel):
    """A token to make; without `lifetime_s` (seconds) it does not expire.

    `account` is whose it is: a user, a robot (`PUBLISHER/NAME`), or null for whoever makes it.
    """

    name: str
    scopes: list[str]
    lifetime_s: int | None = None
    account: str | None = None


class TokenDocument(BaseModel):
    """A token without its text; dates are null where nothing happened yet."""

    id: str
    name: str
    scopes: list[str]
    created: str
    expires: str | None
    last_used: str | None
    revoked: str | None
    account: str | None


class CreatedToken(TokenDocument):
    """A token with its text, which is shown this once."""

    token: str


class TokenList(BaseModel):
    """Some tokens; `next` is the `after` of the following ones, null at the end."""

    tokens: list[TokenDocument]
    next: str | None


def _date(seconds: int | None) -> str | None:
    return None if seconds is None else date_text(seconds)


def _document(facts: TokenFacts) -> TokenDocument:
    return TokenDocument(
        id=facts.id,
        name=facts.name,
        scopes=list(facts.scopes),
        created=date_text(facts.created_s),
        expires=_date(facts.expires_s),
        last_used=_date(facts.last_used_s),
        revoked=_date(facts.revoked_s),
        account=facts.account,
    )


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented(NewToken),
    responses=refusals(HTTPStatus.NOT_FOUND),
)
def create_token(
    principal: Caller, body: Annotated[NewToken, Depends(json_body(NewToken))], installation: CurrentInstallation
) -> CreatedToken:
    """Make a token; nobody gives away what he may not do, and only tokens that may manage make others."""
    account = body.account or principal.account
    facts, token = tokens.mint(installation, principal, body.scopes, body.name, body.lifetime_s, account=account)
    return CreatedToken(**_document(facts).model_dump(), token=token)


@router.get("")
def list_tokens(
    principal: Caller,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> TokenList:
    """The tokens that the caller may see, the oldest first: an administrator all, others those that they may revoke."""
    with installation.database.read() as session:
        found, place = tokens.visible(session, principal, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return TokenList(tokens=[_document(facts) for facts in found], next=place)


@router.delete("/{token_id}", status_code=HTTPStatus.NO_CONTENT)
def revoke_token(token_id: str, principal: Caller, installation: CurrentInstallation) -> None:
    """End a token; one's own always."""
    tokens.revoke(installation, token_id, actor=principal.actor, by=principal)
