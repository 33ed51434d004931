"""Pipelines: trusted issuers, rules of publishers, and the exchange of a JWT for a token."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, SecretStr
from starlette.concurrency import run_in_threadpool

from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.document import refusals
from oscirc_server.api.security import Administrator, Manager, Reader, address_of
from oscirc_server.clock import date_text
from oscirc_server.errors import IdentityRefusedError
from oscirc_server.services import oidc, oidc_rules
from oscirc_server.services.oidc_rules import Expected, Rule

router = APIRouter(tags=["pipelines"])


class Exchange(BaseModel):
    """A pipeline's JWT, and as whom it wants to publish."""

    publisher: str
    jwt: SecretStr


class ExchangedToken(BaseModel):
    """A token that publishes, for a while."""

    token: str
    scopes: list[str]
    expires: str | None


class IssuerDocument(BaseModel):
    """An issuer of JWTs; `jwks` is where its keys are, null where its discovery document says so."""

    issuer: str
    jwks: str | None = None


class IssuerList(BaseModel):
    """Trusted issuers."""

    issuers: list[IssuerDocument]


class NewRule(BaseModel):
    """Which JWTs may publish: `claims` are compared whole, `claim_prefixes` by a beginning that ends in / or :."""

    name: str
    issuer: str
    claims: dict[str, str]
    claim_prefixes: dict[str, str] = {}
    lifetime_s: int = oidc_rules.MAX_LIFETIME_S


class RuleDocument(NewRule):
    """A rule of a publisher."""

    id: str
    created: str


class RuleList(BaseModel):
    """A publisher's rules."""

    rules: list[RuleDocument]


def _document(rule: Rule) -> RuleDocument:
    return RuleDocument(
        id=rule.id,
        name=rule.name,
        issuer=rule.issuer,
        claims={name: each.text for name, each in rule.claims.items() if not each.prefix},
        claim_prefixes={name: each.text for name, each in rule.claims.items() if each.prefix},
        lifetime_s=rule.lifetime_s,
        created=date_text(rule.created_s),
    )


@router.post(
    "/tokens/oidc",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented(Exchange),
    responses=refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS),
)
async def exchange_jwt(
    body: Annotated[Exchange, Depends(json_body(Exchange))], request: Request, installation: CurrentInstallation
) -> ExchangedToken:
    """Exchange a pipeline's JWT for a token that publishes. Needs no token; each JWT counts once.

    The JWT must be of a trusted issuer, made for this repository's URL as its only audience, and as a rule of the
    publisher expects.
    """
    context = context_of(request)
    text = body.jwt.get_secret_value()
    try:
        claimed = oidc.look_at(text)
        issuer = await run_in_threadpool(oidc.trusted_issuer, installation, claimed)
        audience = await run_in_threadpool(oidc.audience_of, installation)
        key = await context.issuer_keys.key(issuer, claimed.kid)
        claims = await run_in_threadpool(oidc.verified, text, claimed, key, audience, installation.clock())
        facts, token = await run_in_threadpool(oidc.exchange, installation, body.publisher, claimed, claims)
    except IdentityRefusedError:
        await run_in_threadpool(context.guessing.failed_token, address_of(request))
        raise
    expires = None if facts.expires_s is None else date_text(facts.expires_s)
    return ExchangedToken(token=token, scopes=list(facts.scopes), expires=expires)


@router.get("/oidc/issuers")
def list_issuers(_principal: Administrator, installation: CurrentInstallation) -> IssuerList:
    """Whose JWTs are taken."""
    with installation.database.read() as session:
        found = oidc_rules.issuers(session)
    return IssuerList(issuers=[IssuerDocument(issuer=each.url, jwks=each.jwks_url or None) for each in found])


@router.put(
    "/oidc/issuers",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra=documented(IssuerDocument),
    responses=refusals(HTTPStatus.CONFLICT),
)
def trust_issuer(
    principal: Administrator,
    body: Annotated[IssuerDocument, Depends(json_body(IssuerDocument))],
    installation: CurrentInstallation,
) -> None:
    """Take JWTs of an issuer where rules of publishers allow it."""
    oidc_rules.trust(installation, body.issuer, body.jwks or "", actor=principal.actor)


@router.delete("/oidc/issuers", status_code=HTTPStatus.NO_CONTENT, responses=refusals(HTTPStatus.NOT_FOUND))
def distrust_issuer(
    principal: Administrator, issuer: Annotated[str, Query(max_length=255)], installation: CurrentInstallation
) -> None:
    """Take no more JWTs of an issuer; tokens that were given for them end."""
    oidc_rules.distrust(installation, issuer, actor=principal.actor)


@router.get("/publishers/{publisher}/oidc-rules")
def list_rules(publisher: str, _principal: Reader, installation: CurrentInstallation) -> RuleList:
    """Which pipelines may publish as this publisher."""
    with installation.database.read() as session:
        return RuleList(rules=[_document(rule) for rule in oidc_rules.rules(session, publisher)])


@router.post(
    "/publishers/{publisher}/oidc-rules",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented(NewRule),
    responses=refusals(HTTPStatus.CONFLICT),
)
def add_rule(
    publisher: str,
    principal: Manager,
    body: Annotated[NewRule, Depends(json_body(NewRule))],
    installation: CurrentInstallation,
) -> RuleDocument:
    """Let pipelines publish. At least one claim that says who asks must be given whole."""
    claims = {name: Expected(text, prefix=True) for name, text in body.claim_prefixes.items()}
    claims |= {name: Expected(text) for name, text in body.claims.items()}
    rule = oidc_rules.add_rule(
        installation, publisher, body.name, body.issuer, claims, body.lifetime_s, actor=principal.actor
    )
    return _document(rule)


@router.delete("/publishers/{publisher}/oidc-rules/{rule}", status_code=HTTPStatus.NO_CONTENT)
def remove_rule(publisher: str, rule: str, principal: Manager, installation: CurrentInstallation) -> None:
    """Remove a rule; tokens that it gave out end with it."""
    oidc_rules.remove_rule(installation, publisher, rule, actor=principal.actor)
