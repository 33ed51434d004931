"""Accounts: users (people) and robots (of a publisher), and what a user may do at which publisher.

They are disabled, never deleted: the audit names them, and a name must not become somebody else's. Disabling one ends
its sessions and makes its tokens worthless until it is enabled again. What an account may do is asked at each request
(`authority_of`): a member who is taken out of a publisher cannot publish there from then on, whatever tokens he has.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.names import check_local_name, check_publisher
from oscirc_server import delegations, repository
from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import Account, Member, WebSession
from oscirc_server.services import audit, authority, pages, passwords

MAX_ROBOTS = 100  # of one publisher


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """An account; `publisher` is a robot's, `roles` are a user's by publisher. Times in seconds since the epoch."""

    name: str
    publisher: str | None
    is_admin: bool
    has_password: bool
    roles: dict[str, str]
    created_s: int
    disabled_s: int | None


def _facts(session: Session, row: Account) -> AccountFacts:
    members = session.scalars(select(Member).where(Member.account == row.name).order_by(Member.publisher))
    roles = {member.publisher: member.role for member in members}
    return AccountFacts(
        row.name, row.publisher, row.is_admin, row.password_hash is not None, roles, row.created_s, row.disabled_s
    )


def authority_of(session: Session, name: str) -> frozenset[str] | None:
    """The scopes of what an account may do now; None for one that is disabled or unknown."""
    row = session.get(Account, name)
    if row is None or row.disabled_s is not None:
        return None
    if row.publisher is not None:
        return frozenset({authority.scope(authority.PUBLISH, row.publisher)})
    if row.is_admin:
        return frozenset({authority.ADMIN})
    members = session.scalars(select(Member).where(Member.account == name))
    return frozenset(authority.scope(authority.ROLES[member.role], member.publisher) for member in members)


def find(session: Session, name: str) -> Account:
    """The account's row, or `NotFoundError`."""
    row = session.get(Account, name)
    if row is None:
        raise NotFoundError(f"there is no account {name[:130]!r}")
    return row


def get(session: Session, name: str) -> AccountFacts:
    """One account, or `NotFoundError`."""
    return _facts(session, find(session, name))


def users(session: Session, *, after: str, limit: int) -> tuple[list[AccountFacts], str | None]:
    """Users by name, after one; and the next place, None at the end."""
    return _page(session, Account.publisher.is_(None), after, limit)


def robots(session: Session, publisher: str | None, *, after: str, limit: int) -> tuple[list[AccountFacts], str | None]:
    """Robots of a publisher (None: of all) by name, after one; and the next place, None at the end."""
    return _page(
        session, Account.publisher.is_not(None) if publisher is None else Account.publisher == publisher, after, limit
    )


def _page(
    session: Session, which: ColumnElement[bool], after: str, limit: int
) -> tuple[list[AccountFacts], str | None]:
    wanted = select(Account).where(which, Account.name > pages.name_in(after)).order_by(Account.name).limit(limit + 1)
    rows, place = pages.cut(list(session.scalars(wanted)), limit, lambda row: row.name)
    return [_facts(session, row) for row in rows], place


def members(session: Session, publisher: str) -> dict[str, str]:
    """The roles of a publisher's members, by user."""
    rows = session.scalars(select(Member).where(Member.publisher == publisher).order_by(Member.account))
    return {row.account: row.role for row in rows}


def create_user(
    installation: Installation, name: str, *, password: str | None, is_admin: bool, actor: str
) -> AccountFacts:
    """A new user; without a password there is no login to the pages, only tokens."""
    check_local_name(name, "user")
    hashed = None if password is None else passwords.hash_of(password)
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = _add(session, Account(name=name, password_hash=hashed, is_admin=is_admin, created_s=now_s))
        audit.record(session, now_s, actor, "user.create", name, admin=is_admin)
        return _facts(session, row)


def create_robot(installation: Installation, publisher: str, name: str, *, actor: str) -> AccountFacts:
    """A new robot of a publisher that there is."""
    full = f"{check_publisher(publisher)}/{check_local_name(name, 'robot')}"
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        delegations.delegation(repository.current_targets(session).signed, publisher)
        counted = select(func.count()).select_from(Account).where(Account.publisher == publisher)
        if (session.scalar(counted) or 0) >= MAX_ROBOTS:
            raise ConflictError(f"{publisher} has {MAX_ROBOTS} robots")
        row = _add(session, Account(name=full, publisher=publisher, is_admin=False, created_s=now_s))
        audit.record(session, now_s, actor, "robot.create", full)
        return _facts(session, row)


def _add(session: Session, row: Account) -> Account:
    if session.get(Account, row.name) is not None:
        raise ConflictError(f"there is an account {row.name} already", hint="names are never used twice")
    session.add(row)
    session.flush()
    return row


def set_password(installation: Installation, name: str, password: str | None, *, actor: str) -> None:
    """Another password, or none; every session of the user ends."""
    hashed = None if password is None else passwords.hash_of(password)
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = find(session, name)
        if row.publisher is not None:
            raise UsageError("a robot has no password", hint="it uses tokens")
        row.password_hash = hashed
        session.execute(delete(WebSession).where(WebSession.account == name))
        audit.record(session, now_s, actor, "user.password", name, removed=password is None)


def set_admin(installation: Installation, name: str, is_admin: bool, *, actor: str) -> None:
    """Make a user an administrator, or no longer one."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = find(session, name)
        if row.publisher is not None:
            raise UsageError("a robot cannot be an administrator")
        if row.is_admin != is_admin:
            row.is_admin = is_admin
            audit.record(session, now_s, actor, "user.admin", name, admin=is_admin)


def set_disabled(installation: Installation, name: str, disabled: bool, *, actor: str) -> None:
    """Disable an account or enable it again; the same again changes nothing."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = find(session, name)
        if (row.disabled_s is not None) == disabled:
            return
        row.disabled_s = now_s if disabled else None
        session.execute(delete(WebSession).where(WebSession.account == name))
        audit.record(session, now_s, actor, "account.disable" if disabled else "account.enable", name)


def set_role(installation: Installation, publisher: str, name: str, role: str, *, actor: str) -> None:
    """Make a user a member of a publisher that there is, or change what he may do there."""
    if role not in authority.ROLES:
        raise UsageError(f"unknown role {role[:40]!r}", hint="roles are owner, publisher and reader")
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        delegations.delegation(repository.current_targets(session).signed, publisher)
        if find(session, name).publisher is not None:
            raise UsageError("robots belong to one publisher and are members of none")
        session.merge(Member(account=name, publisher=publisher, role=role))
        audit.record(session, now_s, actor, "member.set", f"{publisher}/{name}", role=role)


def remove_member(installation: Installation, publisher: str, name: str, *, actor: str) -> None:
    """Let a user be no member any more, or `NotFoundError`."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        row = session.get(Member, (name, publisher))
        if row is None:
            raise NotFoundError(f"{name[:130]!r} is no member of {publisher[:80]!r}")
        session.delete(row)
        audit.record(session, now_s, actor, "member.remove", f"{publisher}/{name}")
