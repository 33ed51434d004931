"""Bearer tokens: what somebody may ask this server to do. They never stand for a publisher's signature.

A token is `oscirc_` and 256 random bits; the database holds its SHA-256 only, which needs no salt for that much
entropy. Scopes are `admin` (everything) and `publish:<publisher>` (upload and offer roles of that publisher). A
token may expire, can be revoked, and remembers when it was last used, to the minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.fields import check_text
from oscirc_blockstore.names import check_publisher
from oscirc_server.errors import ScopeError, UnauthenticatedError
from oscirc_server.installation import Installation
from oscirc_server.models import Token
from oscirc_server.services import audit

ADMIN = "admin"
PREFIX = "oscirc_"
MAX_NAME_CHARS = 63
MAX_SCOPES = 100
MAX_LIFETIME_S = 10 * 365 * 86_400

_PUBLISH = "publish:"
_USE_GRAIN_S = 60
_UNKNOWN = "the token is not known here, has expired or was revoked"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a token's id and scopes."""

    token_id: str
    scopes: frozenset[str]

    def require_admin(self) -> None:
        """Raise `ScopeError` unless the token is an administrator's."""
        if ADMIN not in self.scopes:
            raise ScopeError("this needs an administrator's token")

    @property
    def publishers(self) -> tuple[str, ...] | None:
        """Those that the token may publish as; None for an administrator's: all."""
        if ADMIN in self.scopes:
            return None
        return tuple(sorted(scope.removeprefix(_PUBLISH) for scope in self.scopes if scope.startswith(_PUBLISH)))

    def require_publisher(self, publisher: str) -> None:
        """Raise `ScopeError` unless the token may publish as `publisher`."""
        if ADMIN not in self.scopes and f"{_PUBLISH}{publisher}" not in self.scopes:
            raise ScopeError(f"this token may not publish as {publisher}")


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """A token without its secret; times in seconds since the epoch."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_s: int
    expires_s: int | None
    last_used_s: int | None
    revoked_s: int | None


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """The scopes, sorted and without repetition, or `UsageError`."""
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise UsageError(f"a token has 1 to {MAX_SCOPES} scopes")
    for scope in scopes:
        if scope == ADMIN:
            continue
        if not scope.startswith(_PUBLISH):
            raise UsageError(f"unknown scope {scope[:80]!r}", hint="scopes are admin and publish:PUBLISHER")
        check_publisher(scope.removeprefix(_PUBLISH))
    return tuple(sorted(set(scopes)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _facts(row: Token) -> TokenFacts:
    scopes = tuple(row.scopes.split())
    return TokenFacts(row.id, row.name, scopes, row.created_s, row.expires_s, row.last_used_s, row.revoked_s)


def create(
    installation: Installation, scopes: Sequence[str], name: str, lifetime_s: int | None, *, actor: str
) -> tuple[TokenFacts, str]:
    """A new token: its facts, and its text, which nothing can give again."""
    allowed = check_scopes(scopes)
    check_text(name, "the token's name", MAX_NAME_CHARS)
    if lifetime_s is not None and not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise UsageError("a token lives between one second and ten years")
    token = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = Token(
            id=secrets.token_hex(8),
            name=name,
            secret_hash=_hash(token),
            scopes=" ".join(allowed),
            created_s=now_s,
            expires_s=None if lifetime_s is None else now_s + lifetime_s,
        )
        session.add(row)
        audit.record(session, now_s, actor, "token.create", row.id, name=name, scopes=list(allowed))
        session.flush()
        return _facts(row), token


def authenticate(installation: Installation, token: str) -> Principal:
    """Whose token this is, or `UnauthenticatedError`."""
    wanted = _hash(token)
    now_s = installation.now_s()
    with installation.database.read() as session:
        row = session.scalar(select(Token).where(Token.secret_hash == wanted))
    if row is None or not hmac.compare_digest(row.secret_hash, wanted):
        raise UnauthenticatedError(_UNKNOWN)
    if row.revoked_s is not None or (row.expires_s is not None and row.expires_s <= now_s):
        raise UnauthenticatedError(_UNKNOWN)
    if row.last_used_s is None or abs(now_s - row.last_used_s) >= _USE_GRAIN_S:
        with installation.database.write() as session:
            session.execute(update(Token).where(Token.id == row.id).values(last_used_s=now_s))
    return Principal(row.id, frozenset(row.scopes.split()))


def tokens(session: Session) -> list[TokenFacts]:
    """Every token, the oldest first, revoked ones included."""
    return [_facts(row) for row in session.scalars(select(Token).order_by(Token.created_s, Token.id))]


def revoke(installation: Installation, token_id: str, *, actor: str) -> None:
    """End a token; one that is ended already stays so."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = session.get(Token, token_id)
        if row is None:
            raise NotFoundError(f"there is no token {token_id[:32]!r}")
        if row.revoked_s is None:
            row.revoked_s = now_s
            audit.record(session, now_s, actor, "token.revoke", token_id)
