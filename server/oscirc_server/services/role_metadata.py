"""Signed roles and `repository.json` in force, read as they were signed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import NotFoundError
from oscirc_blockstore.repository_facts import TARGET
from oscirc_server import repository
from oscirc_server.models import Document, SignedRole
from oscirc_server.tree_paths import target_path


def etag(row: SignedRole) -> str:
    """A role's validator: its name and version, which never mean other bytes."""
    return f'"{row.role}.{row.version}"'


def current_etag(session: Session, role: str) -> str:
    """The validator of a role in force, empty when it never had a version."""
    version = repository.current_version(session, role)
    return f'"{role}.{version}"' if version else ""


def page(session: Session, *, after: str, limit: int) -> tuple[list[SignedRole], str | None]:
    """Roles in force by name, after one; and the next place, None at the end."""
    rows = [row for row in repository.latest_roles(session) if row.role > after]
    return rows[:limit], rows[limit - 1].role if len(rows) > limit else None


def in_force(session: Session, role: str) -> SignedRole:
    """The version in force of a role, or `NotFoundError`."""
    row = repository.current(session, role)
    if row is None:
        raise NotFoundError(f"this repository has no role {role[:63]!r}")
    return row


def version(session: Session, role: str, number: int) -> SignedRole:
    """One version of a role, or `NotFoundError`."""
    row = session.get(SignedRole, (role, number))
    if row is None:
        raise NotFoundError(f"there is no version {number} of the role {role[:63]!r} here")
    return row


def repository_facts(session: Session) -> tuple[bytes, Digest]:
    """The bytes of the `repository.json` that the targets role in force names, and their digest."""
    digest = parse_hex(repository.current_targets(session).signed.targets[TARGET].hashes["sha256"])
    document = session.get(Document, target_path(TARGET, digest))
    if document is None:
        raise NotFoundError(f"{TARGET} is not here")
    return document.raw, digest
