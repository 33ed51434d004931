"""What an operator should know: versions and expiries of the roles, what will expire soon, where dangerous keys are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_blockstore import repository_facts
from oscirc_blockstore.digests import digest_of, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, OscircError
from oscirc_blockstore.repository_facts import TARGET, RepositoryFacts
from oscirc_server import alarms, delegations, repository
from oscirc_server.alarms import RoleHealth, Severity
from oscirc_server.database import get_fact
from oscirc_server.initialising import PUBLIC_URL, self_certifying_url
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.key_places import RoleKeys, key_places
from oscirc_server.models import DRAFT_OPEN, BlockRow, Document, Draft
from oscirc_server.services.catalog import image_count
from oscirc_server.services.roles import unsigned_publishers
from oscirc_server.settings import DEFAULT_LISTEN
from oscirc_server.tree_paths import target_path


@dataclass(frozen=True, slots=True)
class Status:
    """Facts for `oscirc serve status`; `alarms` are sentences, empty when all is well.

    `severity` is what monitoring goes by: the worst of the roles, and of what else keeps the repository from working.
    Keys that stand where they should not are told, and are no reason to wake somebody.
    """

    remote_url: str
    public_url: str
    roles: tuple[RoleHealth, ...]
    keys: tuple[RoleKeys, ...]
    offline_keys_here: tuple[str, ...]
    can_impersonate_publishers: bool
    publishers: int
    images: int
    blocks: int
    stored_bytes: int
    open_drafts: int
    alarms: tuple[str, ...]
    severity: Severity


def remote_url(session: Session, base_url: str | None = None) -> str:
    """The self-certifying URL under `base_url`, else under the public one, else under the default address."""
    base = base_url or get_fact(session, PUBLIC_URL) or f"http://{DEFAULT_LISTEN}"
    return self_certifying_url(base, digest_of(repository.in_force(session, "root").raw))


def facts_in_force(session: Session) -> RepositoryFacts | None:
    """The `repository.json` that the targets role in force names; None where it is not here or cannot be read."""
    targets = repository.current_targets(session).signed
    document = session.get(Document, target_path(TARGET, parse_hex(targets.targets[TARGET].hashes["sha256"])))
    try:
        return None if document is None else repository_facts.parse(document.raw)
    except DocumentRefusedError:
        return None


def expired_roles(session: Session, now_s: float) -> list[str]:
    """Those of the four top-level roles without which no client accepts anything."""
    rows = [repository.in_force(session, role) for role in (*OFFLINE_ROLES, *ONLINE_ROLES)]
    return [row.role for row in rows if row.expires_s <= now_s]


def _misplaced(keys: tuple[RoleKeys, ...]) -> list[str]:
    offline = [role for role in keys if role.role in OFFLINE_ROLES and role.files_here]
    if not offline:
        return []
    names = " and ".join(role.role for role in offline)
    directory = Path(offline[0].files_here[0]).parent
    plural = "s" if len(offline) > 1 else ""
    return [f"this server can impersonate publishers: move the {names} key{plural} out of {directory}"]


def _failures(installation: Installation, session: Session, keys: tuple[RoleKeys, ...]) -> list[str]:
    said = [
        f"this server lacks the {role.role} key that the root names: nothing can be published or renewed here"
        for role in keys
        if role.role in ONLINE_ROLES and not role.signs_here
    ]
    said += [
        f"{publisher}'s role is not signed by its keys in force: the publisher must sign again"
        for publisher in unsigned_publishers(session, repository.current_targets(session).signed)
    ]
    try:
        installation.storage.check()
    except OscircError as error:
        said.append(f"the store cannot be used: {error}")
    return said


def status(installation: Installation) -> Status:
    """Gather the facts; reads only."""
    with installation.database.read() as session:
        roles = alarms.roles_of(session, installation.now_s())
        keys = key_places(repository.current_root(session).signed, installation.layout.keys)
        offline = tuple(role.role for role in keys if role.role in OFFLINE_ROLES and role.files_here)
        blocks, stored = session.execute(select(func.count(), func.sum(BlockRow.stored_length))).one()
        drafts = session.scalar(select(func.count()).select_from(Draft).where(Draft.state == DRAFT_OPEN)) or 0
        said = [role.alarm for role in roles if role.alarm]
        failures = _failures(installation, session, keys)
        worst = alarms.worst(roles)
        return Status(
            remote_url=remote_url(session),
            public_url=get_fact(session, PUBLIC_URL) or "",
            roles=roles,
            keys=keys,
            offline_keys_here=offline,
            can_impersonate_publishers=bool(offline),
            publishers=len(delegations.publishers(repository.current_targets(session).signed)),
            images=image_count(session),
            blocks=blocks,
            stored_bytes=stored or 0,
            open_drafts=drafts,
            alarms=(*said, *_misplaced(keys), *failures),
            severity=Severity.WARNING if failures and worst is Severity.OK else worst,
        )
