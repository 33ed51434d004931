"""Exchanges the JWT of a pipeline for a token that publishes: checked in this order, and counted once.

1. its form: three parts, 16 KiB at most, an algorithm of ours (`ALGORITHMS`, all asymmetric), a key's id;
2. its issuer is trusted here, and names the key; the signature;
3. the audience is this repository's URL and nothing else; its times, with half a minute of slack; a day at most;
4. a rule of the publisher allows its claims;
5. its `jti` was not exchanged before: that is remembered, in the transaction that makes the token, until it expires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from sqlalchemy import delete

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.names import check_publisher
from oscirc_server.database import get_fact
from oscirc_server.errors import IdentityRefusedError
from oscirc_server.initialising import PUBLIC_URL
from oscirc_server.installation import Installation
from oscirc_server.models import OidcUse
from oscirc_server.services import audit, authority, oidc_rules, tokens
from oscirc_server.services.oidc_rules import Issuer
from oscirc_server.services.tokens import TokenFacts

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
MAX_JWT_CHARS = 16 * 1024
SLACK_S = 30
MAX_LIFETIME_S = 86_400
_PARTS = 3
_MAX_TEXT_CHARS = 256


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a JWT says of itself before anything of it is believed."""

    issuer: str
    kid: str
    algorithm: str


def _part(text: str) -> dict[str, object]:
    try:
        document = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise IdentityRefusedError("that is not a JWT") from None
    if not isinstance(document, dict):
        raise IdentityRefusedError("that is not a JWT")
    return document


def look_at(text: str) -> Claimed:
    """Step 1: who would have to have signed it, or `IdentityRefusedError`."""
    parts = text.split(".")
    if len(text) > MAX_JWT_CHARS or len(parts) != _PARTS or not text.isascii():
        raise IdentityRefusedError("that is not a JWT, or one that is too long")
    header, payload = _part(parts[0]), _part(parts[1])
    algorithm, kid, issuer = header.get("alg"), header.get("kid", ""), payload.get("iss")
    if algorithm not in ALGORITHMS or "crit" in header or "b64" in header:
        raise IdentityRefusedError("the JWT is signed in a way that is not allowed here")
    if not isinstance(kid, str) or len(kid) > _MAX_TEXT_CHARS or not isinstance(issuer, str):
        raise IdentityRefusedError("the JWT does not say who signed it")
    return Claimed(issuer, kid, str(algorithm))


def trusted_issuer(installation: Installation, claimed: Claimed) -> Issuer:
    """Step 2, first half: the issuer, if it is trusted here."""
    with installation.database.read() as session:
        found = oidc_rules.issuer(session, claimed.issuer)
    if found is None:
        raise IdentityRefusedError("the JWT's issuer is not trusted here")
    return found


def verified(text: str, claimed: Claimed, key: Key, audience: str, now_s: float) -> dict[str, object]:
    """Steps 2 and 3: the claims of a JWT that is signed by this key, for this repository, for now."""
    try:
        claims: dict[str, object] = dict(jwt.decode(text, key, algorithms=[claimed.algorithm]).claims)
    except (JoseError, ValueError, TypeError):
        raise IdentityRefusedError("the JWT's signature is not its issuer's") from None
    if claims.get("iss") != claimed.issuer:
        raise IdentityRefusedError("the JWT's issuer is not trusted here")
    if claims.get("aud") not in (audience, [audience]):
        raise IdentityRefusedError(f"the JWT is not for this repository alone: its audience must be {audience}")
    expires_s, issued_s = _time(claims, "exp"), _time(claims, "iat")
    starts_s = _time(claims, "nbf") if "nbf" in claims else issued_s
    if not max(issued_s, starts_s) - SLACK_S <= now_s < expires_s + SLACK_S:
        raise IdentityRefusedError("the JWT has expired, or is not valid yet")
    if expires_s - issued_s > MAX_LIFETIME_S:
        raise IdentityRefusedError("the JWT lives for more than a day")
    if not 0 < len(_text(claims, "jti")) <= _MAX_TEXT_CHARS:
        raise IdentityRefusedError("the JWT has no usable jti")
    return claims


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise IdentityRefusedError(f"the JWT has no usable {name}")
    return value


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def audience_of(installation: Installation) -> str:
    """What JWTs must be made for: the repository's URL."""
    with installation.database.read() as session:
        url = get_fact(session, PUBLIC_URL)
    if url is None:
        raise UsageError(
            "this repository has no public URL for JWTs to be made for", hint="oscirc serve init --public-url gives one"
        )
    return url


def exchange(
    installation: Installation, publisher: str, claimed: Claimed, claims: Mapping[str, object]
) -> tuple[TokenFacts, str]:
    """Steps 4 and 5: a token that publishes as `publisher`, for a JWT that is verified."""
    check_publisher(publisher)
    now_s = installation.now_s()
    subject = _text(claims, "sub")[:_MAX_TEXT_CHARS]
    jti = _text(claims, "jti")
    used = hashlib.sha256(f"{claimed.issuer}\0{jti}".encode()).digest()
    with installation.database.write(durable=True) as session:
        if oidc_rules.issuer(session, claimed.issuer) is None:
            raise IdentityRefusedError("the JWT's issuer is not trusted here")
        known = oidc_rules.rules(session, publisher, claimed.issuer)
        rule = next((each for each in known if each.allows(claims)), None)
        if rule is None:
            raise IdentityRefusedError(f"no rule of {publisher} lets {subject or 'this pipeline'} publish")
        session.execute(delete(OidcUse).where(OidcUse.expires_s < now_s))
        if session.get(OidcUse, used) is not None:
            raise IdentityRefusedError("this JWT was exchanged before", hint="have the pipeline ask for another one")
        session.add(OidcUse(digest=used, expires_s=int(_time(claims, "exp")) + SLACK_S + 1))
        scope = authority.scope(authority.PUBLISH, publisher)
        facts, token = tokens.add(session, now_s, [scope], rule.name, rule.lifetime_s, rule=rule.id)
        detail = {"token": facts.id, "rule": rule.id, "issuer": claimed.issuer, "by": subject, "jti": jti}
        audit.record(session, now_s, f"oidc {rule.name}", "oidc.exchange", publisher, **detail)
        return facts, token
