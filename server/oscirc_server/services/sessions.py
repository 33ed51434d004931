"""Logins to the pages: a random secret in the browser's cookie, its SHA-256 here, ended here whenever that is due.

A session ends twelve hours after it was last used, seven days after the login, when its user logs out, is disabled or
has another password. What it may do is what its user may do at that moment (`authority`), as with a token.
"""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import delete, or_, update
from sqlalchemy.orm import Session

from oscirc_server.errors import ScopeError, UnauthenticatedError, WrongPasswordError
from oscirc_server.installation import Installation
from oscirc_server.models import Account, WebSession
from oscirc_server.services import accounts, audit, passwords
from oscirc_server.services.authority import Principal

IDLE_S = 12 * 3600
LIFETIME_S = 7 * 86_400
MAX_SECRET_CHARS = 64

_USE_GRAIN_S = 300


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def log_in(installation: Installation, name: str, password: str, *, instead_of: str = "") -> str:
    """A new session's secret, in place of another one of this browser; `UnauthenticatedError` for a wrong password."""
    with installation.database.read() as session:
        row = session.get(Account, name)
        stored = None if row is None or row.publisher is not None else row.password_hash
    if not passwords.matches(stored, password):
        raise UnauthenticatedError("the name or the password is wrong")
    renewed = passwords.hash_of(password) if stored is not None and passwords.is_outdated(stored) else None
    secret = secrets.token_urlsafe(32)
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = accounts.find(session, name)
        if row.disabled_s is not None or row.password_hash != stored:
            raise UnauthenticatedError("the name or the password is wrong")
        row.password_hash = renewed or row.password_hash
        _forget_old(session, now_s)
        session.execute(delete(WebSession).where(WebSession.secret_hash == _hash(instead_of)))
        session.add(WebSession(secret_hash=_hash(secret), account=name, created_s=now_s, seen_s=now_s))
        audit.record(session, now_s, name, "session.begin", name)
    return secret


def principal_of(installation: Installation, secret: str) -> Principal | None:
    """Who is logged in with this cookie, or None."""
    if not 0 < len(secret) <= MAX_SECRET_CHARS or not secret.isascii():
        return None
    now_s = installation.now_s()
    with installation.database.read() as session:
        row = session.get(WebSession, _hash(secret))
        if row is None or row.seen_s + IDLE_S <= now_s or row.created_s + LIFETIME_S <= now_s:
            return None
        scopes = accounts.authority_of(session, row.account)
    if scopes is None:
        return None
    if abs(now_s - row.seen_s) >= _USE_GRAIN_S:
        with installation.database.write(shared=True) as session:
            session.execute(update(WebSession).where(WebSession.secret_hash == row.secret_hash).values(seen_s=now_s))
    return Principal(f"session {row.secret_hash.hex()[:8]}", scopes, row.account, is_session=True)


def log_out(installation: Installation, secret: str) -> None:
    """End a session; one that is none is ended already."""
    with installation.database.write(durable=True) as session:
        session.execute(delete(WebSession).where(WebSession.secret_hash == _hash(secret)))


def change_password(
    installation: Installation, principal: Principal, present: str, new: str, *, kept: str = ""
) -> None:
    """A user's own password, by the present one; ends every session of his but the `kept` one, and nothing else.

    Raises `ScopeError` for who is no user, `WrongPasswordError`, and `UsageError` for one that may be no password.
    """
    name = principal.account
    with installation.database.read() as session:
        row = None if name is None else session.get(Account, name)
    if name is None or row is None or row.publisher is not None or row.password_hash is None:
        raise ScopeError("only a user who has a password can change it", hint="an administrator can give one")
    if not passwords.matches(row.password_hash, present):
        raise WrongPasswordError("the present password is wrong", hint="an administrator can give another")
    hashed = passwords.hash_of(new)
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        now = accounts.find(session, name)
        if now.disabled_s is not None or now.password_hash != row.password_hash:
            raise WrongPasswordError("the password was changed meanwhile", hint="log in again")
        now.password_hash = hashed
        others = (WebSession.account == name, WebSession.secret_hash != _hash(kept))
        session.execute(delete(WebSession).where(*others))
        audit.record(session, now_s, principal.actor, "user.password", name, removed=False, own=True)


def _forget_old(session: Session, now_s: int) -> None:
    old = or_(WebSession.seen_s <= now_s - IDLE_S, WebSession.created_s <= now_s - LIFETIME_S)
    session.execute(delete(WebSession).where(old))
