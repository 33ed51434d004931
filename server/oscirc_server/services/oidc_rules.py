"""Which pipelines may publish: issuers that an administrator trusts, and rules that a publisher's owners make.

A rule names an issuer and what claims of its JWTs must say. A claim is compared whole, or by a prefix that ends in `/`
or `:`, so that `refs/tags/` is possible and `org/repo` never lets `org/repo-of-a-thief` in. At least one claim that
says *who* asks (`IDENTIFYING`) must be given whole: a rule about a branch alone would let every repository in.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.names import check_local_name
from oscirc_server import delegations, repository
from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import OidcIssuer, OidcRule, Token
from oscirc_server.services import audit

IDENTIFYING = frozenset(
    {"sub", "repository", "repository_id", "project_path", "project_id", "pipeline_definition_id", "email"}
)
MAX_LIFETIME_S = 3600
MIN_LIFETIME_S = 60
MAX_RULES = 100  # of one publisher
MAX_ISSUERS = 100
MAX_CLAIMS = 20
MAX_VALUE_CHARS = 512

_OURS = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_MAX_URL_CHARS = 255


@dataclass(frozen=True, slots=True)
class Expected:
    """What a claim must be, or (`prefix`) begin with."""

    text: str
    prefix: bool = False

    def holds(self, value: object) -> bool:
        """Whether a claim's value is as expected; other types than text never are."""
        if not isinstance(value, str):
            return False
        return value.startswith(self.text) if self.prefix else value == self.text


@dataclass(frozen=True, slots=True)
class Rule:
    """Whoever shows a JWT of `issuer` whose claims are as expected may publish as `publisher` for `lifetime_s`."""

    id: str
    publisher: str
    name: str
    issuer: str
    claims: Mapping[str, Expected]
    lifetime_s: int
    created_s: int

    def allows(self, claims: Mapping[str, object]) -> bool:
        """Whether all of the rule's claims hold."""
        return all(expected.holds(claims.get(name)) for name, expected in self.claims.items())


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer and where its keys are (empty: its discovery document says)."""

    url: str
    jwks_url: str


def check_address(url: str, what: str) -> str:
    """The URL: https, or http to a loopback address (for tests and for what runs on this machine)."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{what} is not an address") from None
    odd = parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable() or " " in url
    if len(url) > _MAX_URL_CHARS or not host or odd:
        raise UsageError(f"{what} is not an address that is allowed")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise UsageError(f"{what} must begin with https://")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name is whatever a resolver says


def check_claims(claims: Mapping[str, Expected]) -> Mapping[str, Expected]:
    """The claims, if they can make a rule, else `UsageError`."""
    if not 1 <= len(claims) <= MAX_CLAIMS:
        raise UsageError(f"a rule has 1 to {MAX_CLAIMS} claims")
    for name, expected in claims.items():
        if not _CLAIM.fullmatch(name) or name in _OURS:
            raise UsageError(f"a rule cannot be about the claim {name[:80]!r}")
        if not 0 < len(expected.text) <= MAX_VALUE_CHARS or not expected.text.isprintable():
            raise UsageError(f"the value of {name} is empty, too long or not printable")
        if expected.prefix and not expected.text.endswith(("/", ":")):
            raise UsageError(f"the prefix of {name} must end in / or :", hint="else it lets longer names in, too")
    if not any(name in IDENTIFYING and not expected.prefix for name, expected in claims.items()):
        named = ", ".join(sorted(IDENTIFYING))
        raise UsageError("the rule does not say who may ask", hint=f"give one of these claims whole: {named}")
    return claims


def _dump(claims: Mapping[str, Expected]) -> str:
    return json.dumps({name: [each.text, each.prefix] for name, each in claims.items()}, sort_keys=True)


def _rule(row: OidcRule) -> Rule:
    claims = {name: Expected(text, prefix) for name, (text, prefix) in json.loads(row.claims).items()}
    return Rule(row.id, row.publisher, row.name, row.issuer, claims, row.lifetime_s, row.created_s)


def issuer(session: Session, url: str) -> Issuer | None:
    """A trusted issuer, or None."""
    row = session.get(OidcIssuer, url)
    return None if row is None else Issuer(row.url, row.jwks_url)


def issuers(session: Session) -> list[Issuer]:
    """Every trusted issuer."""
    return [Issuer(row.url, row.jwks_url) for row in session.scalars(select(OidcIssuer).order_by(OidcIssuer.url))]


def trust(installation: Installation, url: str, jwks_url: str, *, actor: str) -> Issuer:
    """Trust an issuer; again, with its keys elsewhere."""
    check_address(url, "the issuer")
    if jwks_url:
        check_address(jwks_url, "the address of the issuer's keys")
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        known = session.scalar(select(func.count()).select_from(OidcIssuer).where(OidcIssuer.url != url)) or 0
        if known >= MAX_ISSUERS:
            raise ConflictError(f"{MAX_ISSUERS} issuers are trusted already")
        session.merge(OidcIssuer(url=url, jwks_url=jwks_url, created_s=now_s))
        audit.record(session, now_s, actor, "oidc.trust", url, jwks=jwks_url)
    return Issuer(url, jwks_url)


def distrust(installation: Installation, url: str, *, actor: str) -> None:
    """Trust an issuer no more: what its JWTs were exchanged for is worthless from then on, its rules stay."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = session.get(OidcIssuer, url)
        if row is None:
            raise NotFoundError(f"the issuer {url[:255]!r} is not trusted here")
        session.delete(row)
        ours = select(OidcRule.id).where(OidcRule.issuer == url)
        _revoke(session, Token.rule.in_(ours), now_s)
        audit.record(session, now_s, actor, "oidc.distrust", url)


def rules(session: Session, publisher: str, of_issuer: str | None = None) -> list[Rule]:
    """A publisher's rules, the oldest first; of one issuer, or of all."""
    query = select(OidcRule).where(OidcRule.publisher == publisher).order_by(OidcRule.created_s, OidcRule.id)
    if of_issuer is not None:
        query = query.where(OidcRule.issuer == of_issuer)
    return [_rule(row) for row in session.scalars(query)]


def add_rule(
    installation: Installation,
    publisher: str,
    name: str,
    of_issuer: str,
    claims: Mapping[str, Expected],
    lifetime_s: int,
    *,
    actor: str,
) -> Rule:
    """Let pipelines publish."""
    check_local_name(name, "rule")
    check_claims(claims)
    if not MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
        raise UsageError(f"tokens of a rule live {MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds")
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        delegations.delegation(repository.current_targets(session).signed, publisher)
        if session.get(OidcIssuer, of_issuer) is None:
            raise NotFoundError(
                f"the issuer {of_issuer[:255]!r} is not trusted here",
                hint="an administrator trusts it: oscirc oidc trust",
            )
        of_publisher = select(func.count()).select_from(OidcRule).where(OidcRule.publisher == publisher)
        if (session.scalar(of_publisher) or 0) >= MAX_RULES:
            raise ConflictError(f"{publisher} has {MAX_RULES} rules")
        row = OidcRule(
            id=secrets.token_hex(8),
            publisher=publisher,
            name=name,
            issuer=of_issuer,
            claims=_dump(claims),
            lifetime_s=lifetime_s,
            created_s=now_s,
        )
        session.add(row)
        audit.record(session, now_s, actor, "oidc.allow", f"{publisher}/{row.id}", issuer=of_issuer, claims=row.claims)
        return _rule(row)


def remove_rule(installation: Installation, publisher: str, rule_id: str, *, actor: str) -> None:
    """Remove a rule; tokens that it gave out end with it."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = session.get(OidcRule, rule_id)
        if row is None or row.publisher != publisher:
            raise NotFoundError(f"{publisher[:80]} has no rule {rule_id[:32]!r}")
        session.delete(row)
        _revoke(session, Token.rule == rule_id, now_s)
        audit.record(session, now_s, actor, "oidc.forbid", f"{publisher}/{rule_id}")


def _revoke(session: Session, which: ColumnElement[bool], now_s: int) -> None:
    session.execute(
        update(Token)
        .where(which, Token.revoked_s.is_(None))
        .values(revoked_s=now_s)
        .execution_options(synchronize_session=False)
    )
