"""What clients may have been told, and can therefore still ask for: manifests, documents and roles.

A client believes a role because a snapshot names it, and a snapshot for as long as that is valid. So every snapshot
counts until `told_for_s` after it expired, and the newest one always: a repository that was switched off for a year,
or a publisher that forgot to sign again, loses nothing. A publisher to whom the targets role delegates no more counts
until `told_for_s` after its own role expired: it may be added again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index, trust
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.repository_facts import TARGET
from oscirc_server import delegations, repository
from oscirc_server.errors import UnreadableRootError
from oscirc_server.metadata import parse
from oscirc_server.models import Document, ImageRow, SignedRole
from oscirc_server.tree_paths import target_path
from oscirc_server.tuf_api import Snapshot, Targets


@dataclass(slots=True)
class Told:
    """What the snapshots up to `newest_snapshot` lead to."""

    newest_snapshot: int = 0
    manifests: set[Digest] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    roles: set[tuple[str, int]] = field(default_factory=set)


def told(session: Session, *, now_s: int, told_for_s: int, above: int = 0) -> Told:
    """All that counts now; with `above`, what snapshots after that one name. Raises `UnreadableRootError`."""
    horizon_s = now_s - told_for_s
    newest = session.scalar(select(func.max(SignedRole.version)).where(SignedRole.role == "snapshot")) or 0
    found = Told(newest)
    counts = (SignedRole.expires_s > horizon_s) | (SignedRole.version == newest)
    query = select(SignedRole.version).where(SignedRole.role == "snapshot", SignedRole.version > above, counts)
    for version in session.scalars(query.order_by(SignedRole.version)).all():
        snapshot = parse(_raw(session, "snapshot", version), Snapshot, f"snapshot {version}").signed
        found.roles.add(("snapshot", version))
        found.roles.update((name.removesuffix(".json"), meta.version) for name, meta in snapshot.meta.items())
    delegated = set(delegations.publishers(repository.current_targets(session).signed))
    for role, version in sorted(found.roles):
        if role == "targets":
            _follow_targets(session, version, found)
        elif role != "snapshot":
            _follow_publisher(session, role, version, found, expired_s=None if role in delegated else horizon_s)
    for path in session.scalars(select(ImageRow.index_path)):
        found.documents.add(path)  # also of images that are listed no more: what they released is remembered by it
    return found


def _raw(session: Session, role: str, version: int) -> bytes:
    row = session.get(SignedRole, (role, version))
    if row is None:
        raise UnreadableRootError(f"version {version} of the role {role}, which readers were told of, is not here")
    session.expunge(row)
    return row.raw


def _targets(session: Session, role: str, version: int) -> Targets:
    try:
        return parse(_raw(session, role, version), Targets, f"version {version} of the role {role}").signed
    except UnreadableRootError:
        raise
    except OscircError as error:
        raise UnreadableRootError(str(error)) from None


def _follow_targets(session: Session, version: int, found: Told) -> None:
    target = _targets(session, "targets", version).targets.get(TARGET)
    if target is not None:
        found.documents.add(target_path(TARGET, parse_hex(target.hashes["sha256"])))


def _follow_publisher(session: Session, role: str, version: int, found: Told, *, expired_s: int | None) -> None:
    signed = _targets(session, role, version)
    if expired_s is not None and signed.expires.timestamp() <= expired_s:
        return
    for target, facts in signed.targets.items():
        path = target_path(target, parse_hex(facts.hashes["sha256"]))
        if path in found.documents:
            continue
        found.documents.add(path)
        raw = session.scalar(select(Document.raw).where(Document.path == path))
        if raw is None:
            raise UnreadableRootError(f"{path}, which version {version} of the role {role} names, is not here")
        try:
            index = image_index.parse(raw, role, trust.image_of_target(role, target))
        except OscircError as error:
            raise UnreadableRootError(f"{path}: {error}") from None
        found.manifests.update(known.manifest for known in index.versions)
