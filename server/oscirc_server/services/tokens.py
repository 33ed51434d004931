"""Bearer tokens: what somebody may ask this server to do. They never stand for a publisher's signature.

A token's form is in `oscirc_blockstore.token_text`; the database holds its SHA-256 only, which needs no salt for 256
random bits. Scopes are those of `authority`. A token may expire, can be revoked, and remembers when it was last used,
to the minute. One that belongs to an account does what its scopes name *and* that account may do at that moment.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore import token_text
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.fields import check_text
from oscirc_server.errors import ScopeError, UnauthenticatedError
from oscirc_server.installation import Installation
from oscirc_server.models import Account, Token
from oscirc_server.services import accounts, audit, authority, pages
from oscirc_server.services.authority import ADMIN, Principal, check_scopes

MAX_NAME_CHARS = 63
MAX_LIFETIME_S = 10 * 365 * 86_400

_USE_GRAIN_S = 60
_UNKNOWN = "the token is not known here, has expired or was revoked"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """A token without its secret; times in seconds since the epoch; `account` is None for the installation's own."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_s: int
    expires_s: int | None
    last_used_s: int | None
    revoked_s: int | None
    account: str | None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _facts(row: Token) -> TokenFacts:
    scopes = tuple(row.scopes.split())
    return TokenFacts(
        row.id, row.name, scopes, row.created_s, row.expires_s, row.last_used_s, row.revoked_s, row.account
    )


def add(
    session: Session,
    now_s: int,
    scopes: Sequence[str],
    name: str,
    lifetime_s: int | None,
    *,
    account: str | None = None,
    rule: str | None = None,
) -> tuple[TokenFacts, str]:
    """A new token in a transaction of the caller's, who writes the audit."""
    allowed = check_scopes(scopes)
    check_text(name, "the token's name", MAX_NAME_CHARS)
    if lifetime_s is not None and not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise UsageError("a token lives between one second and ten years")
    token = token_text.from_secret(secrets.token_bytes(32))
    row = Token(
        id=secrets.token_hex(8),
        name=name,
        secret_hash=_hash(token),
        scopes=" ".join(allowed),
        created_s=now_s,
        expires_s=None if lifetime_s is None else now_s + lifetime_s,
        account=account,
        rule=rule,
    )
    session.add(row)
    session.flush()
    return _facts(row), token


def create(
    installation: Installation,
    scopes: Sequence[str],
    name: str,
    lifetime_s: int | None,
    *,
    actor: str,
    account: str | None = None,
) -> tuple[TokenFacts, str]:
    """A new token: its facts, and its text, which nothing can give again."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        if account is not None:
            accounts.find(session, account)
        facts, token = add(session, now_s, scopes, name, lifetime_s, account=account)
        audit.record(
            session, now_s, actor, "token.create", facts.id, name=name, scopes=list(facts.scopes), account=account
        )
        return facts, token


def mint(
    installation: Installation,
    principal: Principal,
    scopes: Sequence[str],
    name: str,
    lifetime_s: int | None,
    *,
    account: str | None,
) -> tuple[TokenFacts, str]:
    """A token that somebody makes: for his own account, or a robot of a publisher that he manages; `ScopeError` else.

    Nobody gives away what he may not do himself. An administrator makes tokens for anybody, and for no account.
    """
    allowed = check_scopes(scopes)
    principal.require_grantable(allowed)
    with installation.database.read() as session:
        owner = None if account is None else accounts.find(session, account)
        may = principal.may(ADMIN) or (owner is not None and _is_visible(principal, owner))
        if not may:
            raise ScopeError("this token may make tokens for its own account and for robots that it manages only")
        if owner is not None:
            _require_useful(session, owner.name, allowed)
    return create(installation, allowed, name, lifetime_s, actor=principal.actor, account=account)


def _require_useful(session: Session, account: str, scopes: Sequence[str]) -> None:
    held = accounts.authority_of(session, account) or frozenset()
    for each in scopes:
        if not authority.includes(held, each):
            raise ScopeError(f"{account} may not do what {each[:80]} stands for")


def _is_visible(principal: Principal, owner: Account) -> bool:
    if owner.name == principal.account:
        return True
    return owner.publisher is not None and principal.may(authority.MANAGE, owner.publisher)


def authenticate(installation: Installation, token: str) -> Principal:
    """Whose token this is, or `UnauthenticatedError`."""
    if not token_text.is_whole(token):
        raise UnauthenticatedError("that is not a whole token: mistyped, or cut off?", hint="paste it as it was shown")
    wanted = _hash(token)
    now_s = installation.now_s()
    with installation.database.read() as session:
        row = session.scalar(select(Token).where(Token.secret_hash == wanted))
        if row is None or not hmac.compare_digest(row.secret_hash, wanted):
            raise UnauthenticatedError(_UNKNOWN)
        if row.revoked_s is not None or (row.expires_s is not None and row.expires_s <= now_s):
            raise UnauthenticatedError(_UNKNOWN)
        scopes = frozenset(row.scopes.split())
        if row.account is not None:
            allowed = accounts.authority_of(session, row.account)
            if allowed is None:
                raise UnauthenticatedError(_UNKNOWN)
            scopes = authority.effective(scopes, allowed)
    if row.last_used_s is None or abs(now_s - row.last_used_s) >= _USE_GRAIN_S:
        with installation.database.write(shared=True) as session:
            session.execute(update(Token).where(Token.id == row.id).values(last_used_s=now_s))
    return Principal(row.id, scopes, row.account)


def tokens(session: Session) -> list[TokenFacts]:
    """Every token, the oldest first, revoked ones included."""
    return [_facts(row) for row in session.scalars(select(Token).order_by(Token.created_s, Token.id))]


def _managed(session: Session, principal: Principal) -> Collection[str]:
    rows = session.scalars(select(Account).where(Account.publisher.is_not(None)))
    names = {row.name for row in rows if _is_visible(principal, row)}
    return names if principal.account is None else names | {principal.account}


def visible(
    session: Session, principal: Principal, *, after: str, limit: int, valid_at_s: int | None = None
) -> tuple[list[TokenFacts], str | None]:
    """Those that somebody may see and revoke: all of them, or those of his account and of the robots he manages.

    The oldest first, after a place; and the next place, None at the end. With `valid_at_s` only those that are valid
    at that second.
    """
    statement = select(Token)
    if not principal.may(ADMIN):
        statement = statement.where(Token.account.in_(_managed(session, principal)))
    if valid_at_s is not None:
        lasts = or_(Token.expires_s.is_(None), Token.expires_s > valid_at_s)
        statement = statement.where(Token.revoked_s.is_(None), lasts)
    place = pages.moment_in(after)
    if place is not None:
        at_s, identifier = place
        later = or_(Token.created_s > at_s, and_(Token.created_s == at_s, Token.id > identifier))
        statement = statement.where(later)
    rows = list(session.scalars(statement.order_by(Token.created_s, Token.id).limit(limit + 1)))
    return pages.cut([_facts(row) for row in rows], limit, lambda facts: pages.moment(facts.created_s, facts.id))


def _is_of(session: Session, row: Token, principal: Principal) -> bool:
    owner = None if row.account is None else accounts.find(session, row.account)
    return principal.may(ADMIN) or (owner is not None and _is_visible(principal, owner))


def revoke(installation: Installation, token_id: str, *, actor: str, by: Principal | None = None) -> None:
    """End a token; one that is ended already stays so. To `by`, one that he may not see and does not use is none."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = session.get(Token, token_id)
        if row is None or not (by is None or row.id == by.token_id or _is_of(session, row, by)):
            raise NotFoundError(f"there is no token {token_id[:32]!r}")
        if row.revoked_s is None:
            row.revoked_s = now_s
            audit.record(session, now_s, actor, "token.revoke", token_id)
