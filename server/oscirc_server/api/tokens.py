"""Bearer tokens, for administrators."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.security import Administrator
from oscirc_server.clock import date_text
from oscirc_server.services import tokens
from oscirc_server.services.tokens import TokenFacts

router = APIRouter(prefix="/tokens", tags=["administration"])


class NewToken(BaseModel):
    """A token to make; without `lifetime_s` (seconds) it does not expire."""

    name: str
    scopes: list[str]
    lifetime_s: int | None = None


class TokenDocument(BaseModel):
    """A token without its text; dates are null where nothing happened yet."""

    id: str
    name: str
    scopes: list[str]
    created: str
    expires: str | None
    last_used: str | None
    revoked: str | None


class CreatedToken(TokenDocument):
    """A token with its text, which is shown this once."""

    token: str


class TokenList(BaseModel):
    """Every token."""

    tokens: list[TokenDocument]


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
    )


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra=documented(NewToken))
def create_token(
    principal: Administrator, body: Annotated[NewToken, Depends(json_body(NewToken))], installation: CurrentInstallation
) -> CreatedToken:
    """Make a token."""
    facts, token = tokens.create(installation, body.scopes, body.name, body.lifetime_s, actor=principal.token_id)
    return CreatedToken(**_document(facts).model_dump(), token=token)


@router.get("")
def list_tokens(_principal: Administrator, installation: CurrentInstallation) -> TokenList:
    """Every token, the oldest first."""
    with installation.database.read() as session:
        return TokenList(tokens=[_document(facts) for facts in tokens.tokens(session)])


@router.delete("/{token_id}", status_code=HTTPStatus.NO_CONTENT)
def revoke_token(token_id: str, principal: Administrator, installation: CurrentInstallation) -> None:
    """End a token."""
    tokens.revoke(installation, token_id, actor=principal.token_id)
