"""What an operator should know: versions and expiries of the roles, what will expire soon, where dangerous keys are."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.trust import ALARM_BEFORE_EXPIRY_S, DAY_S
from oscirc_server import delegations, repository
from oscirc_server.clock import date_text
from oscirc_server.database import get_fact
from oscirc_server.initialising import PUBLIC_URL, self_certifying_url
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES, key_paths
from oscirc_server.models import DRAFT_OPEN, BlockRow, Draft
from oscirc_server.services.catalog import image_count
from oscirc_server.services.roles import unsigned_publishers
from oscirc_server.settings import DEFAULT_LISTEN

_ONLINE_ALARM_S = 2 * DAY_S  # of the seven days that they live; a running server renews them every day


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role in force; `alarm` when it has expired or will soon."""

    role: str
    version: int
    expires_s: int
    alarm: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Facts for `oscirc serve status`; `alarms` are sentences, empty when all is well."""

    remote_url: str
    public_url: str
    roles: tuple[RoleStatus, ...]
    offline_keys_here: tuple[str, ...]
    can_impersonate_publishers: bool
    publishers: int
    images: int
    blocks: int
    stored_bytes: int
    open_drafts: int
    alarms: tuple[str, ...]


def remote_url(session: Session, base_url: str | None = None) -> str:
    """The self-certifying URL under `base_url`, else under the public one, else under the default address."""
    base = base_url or get_fact(session, PUBLIC_URL) or f"http://{DEFAULT_LISTEN}"
    return self_certifying_url(base, digest_of(repository.in_force(session, "root").raw))


def expired_roles(session: Session, now_s: float) -> list[str]:
    """Those of the four top-level roles without which no client accepts anything."""
    rows = [repository.in_force(session, role) for role in (*OFFLINE_ROLES, *ONLINE_ROLES)]
    return [row.role for row in rows if row.expires_s <= now_s]


def _roles(session: Session, now_s: float) -> tuple[RoleStatus, ...]:
    delegated = set(delegations.publishers(repository.current_targets(session).signed))
    found: list[RoleStatus] = []
    for row in repository.latest_roles(session):
        if row.role not in (*OFFLINE_ROLES, *ONLINE_ROLES) and row.role not in delegated:
            continue  # a publisher that was taken out: nobody reads its role
        before = _ONLINE_ALARM_S if row.role in ONLINE_ROLES else ALARM_BEFORE_EXPIRY_S
        found.append(RoleStatus(row.role, row.version, row.expires_s, row.expires_s <= now_s + before))
    return tuple(found)


def _alarms(installation: Installation, session: Session, roles: tuple[RoleStatus, ...]) -> list[str]:
    now_s = installation.now_s()
    alarms: list[str] = []
    for role in roles:
        if role.alarm:
            word = "expired" if role.expires_s <= now_s else "expires"
            alarms.append(f"the {role.role} role {word} on {date_text(role.expires_s)}")
    offline = [role for role in OFFLINE_ROLES if key_paths(installation.layout.keys, role)]
    if offline:
        alarms.append(
            f"this server can impersonate publishers: move the {' and '.join(offline)} "
            f"key{'s' if len(offline) > 1 else ''} out of {installation.layout.keys}"
        )
    alarms += [
        f"{publisher}'s role is not signed by its keys in force: the publisher must sign again"
        for publisher in unsigned_publishers(session, repository.current_targets(session).signed)
    ]
    try:
        installation.storage.check()
    except OscircError as error:
        alarms.append(f"the store cannot be used: {error}")
    return alarms


def status(installation: Installation) -> Status:
    """Gather the facts; reads only."""
    with installation.database.read() as session:
        roles = _roles(session, installation.now_s())
        offline = tuple(role for role in OFFLINE_ROLES if key_paths(installation.layout.keys, role))
        blocks, stored = session.execute(select(func.count(), func.sum(BlockRow.stored_length))).one()
        drafts = session.scalar(select(func.count()).select_from(Draft).where(Draft.state == DRAFT_OPEN)) or 0
        return Status(
            remote_url=remote_url(session),
            public_url=get_fact(session, PUBLIC_URL) or "",
            roles=roles,
            offline_keys_here=offline,
            can_impersonate_publishers=bool(offline),
            publishers=len(delegations.publishers(repository.current_targets(session).signed)),
            images=image_count(session),
            blocks=blocks,
            stored_bytes=stored or 0,
            open_drafts=drafts,
            alarms=tuple(_alarms(installation, session, roles)),
        )
