"""The roles above the publishers: a new targets role, a new root, `repository.json`. Signed elsewhere, judged here.

A new root must leave a repository that works: this server holds the online keys that it names, and the targets role
in force is still signed as it asks. Whoever replaces the targets key therefore names both keys in one root, offers a
targets role signed by the new one, and drops the old key in the next root.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sqlalchemy.orm import Session

from oscirc_blockstore import repository_facts
from oscirc_blockstore.digests import digest_of, parse_hex
from oscirc_blockstore.errors import NotFoundError, SignatureRefusedError, TrustError, UsageError
from oscirc_blockstore.repository_facts import TARGET
from oscirc_server import delegations, repository
from oscirc_server.database import insert_new
from oscirc_server.errors import RoleConflictError
from oscirc_server.installation import Installation
from oscirc_server.key_files import ONLINE_ROLES, retire_keys, signers_for
from oscirc_server.metadata import parse, stored, verify, verify_root_successor
from oscirc_server.models import Document
from oscirc_server.repository import Change
from oscirc_server.services import audit, events, image_rows
from oscirc_server.tree_paths import target_path
from oscirc_server.tuf_api import Root, Targets

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoleAccepted:
    """What took force; `unsigned_publishers` have a role that no key of theirs in force signed: they must sign anew."""

    version: int
    snapshot_version: int
    unsigned_publishers: tuple[str, ...] = ()


def stage_repository_facts(installation: Installation, raw: bytes) -> None:
    """Keep a `repository.json` for the targets role that will name it."""
    repository_facts.parse(raw)
    row = {"path": target_path(TARGET, digest_of(raw)), "raw": raw, "created_s": installation.now_s()}
    with installation.database.write(durable=True) as session:
        insert_new(session, Document, [row])


def _require_next(session: Session, role: str, version: int) -> None:
    current = repository.current_version(session, role)
    if version != current + 1:
        raise RoleConflictError(
            f"the {role} role is at version {current}: version {current + 1} comes next, not {version}",
            current_version=current,
            hint="start again from the role in force",
        )


def unsigned_publishers(session: Session, targets: Targets) -> tuple[str, ...]:
    """The publishers whose role in force is not signed by the keys that `targets` delegates to."""
    unsigned: list[str] = []
    for publisher in delegations.publishers(targets):
        row = repository.current(session, publisher)
        if row is None:
            continue
        try:
            verify(targets, publisher, parse(row.raw, Targets, f"{publisher}'s role"), f"{publisher}'s role")
        except SignatureRefusedError:
            unsigned.append(publisher)
    return tuple(unsigned)


def apply_targets(change: Change, raw: bytes) -> RoleAccepted:
    """Judge a targets role and let it take force within a change of the repository."""
    session = change.session
    metadata = parse(raw, Targets, "the targets role")
    new = metadata.signed
    _require_next(session, "targets", new.version)
    delegations.check_targets(new, change.now_s)
    verify(repository.current_root(session).signed, "targets", metadata, "the targets role")
    path = target_path(TARGET, parse_hex(new.targets[TARGET].hashes["sha256"]))
    document = session.get(Document, path)
    if document is None or len(document.raw) != new.targets[TARGET].length:
        raise TrustError(f"the targets role names a {TARGET} that is not here", hint=f"PUT documents/{TARGET} first")
    change.add_document(path, document.raw)
    before = set(delegations.publishers(repository.current_targets(session).signed))
    gone = before.difference(delegations.publishers(new))
    change.add_role(stored("targets", new, raw))
    unsigned = unsigned_publishers(session, new)
    for publisher in gone.union(unsigned):
        image_rows.unlist_publisher(session, publisher, change.now_s)
    for publisher in sorted(gone):
        events.record(session, change.now_s, "publisher.removed", publisher)
    for publisher in delegations.publishers(new):
        if publisher not in before:
            events.record(session, change.now_s, "publisher.added", publisher)
    return RoleAccepted(new.version, change.snapshot_version, unsigned)


def apply_root(change: Change, raw: bytes, installation: Installation, *, targets_follow: bool = False) -> RoleAccepted:
    """Judge a root and let it take force within a change of the repository.

    With `targets_follow` a targets role signed as the new root asks comes in the same change: the one in force need not
    be.
    """
    session = change.session
    metadata = parse(raw, Root, "the root")
    new = metadata.signed
    _require_next(session, "root", new.version)
    verify_root_successor(repository.current_root(session), metadata)
    if new.expires.timestamp() <= change.now_s:
        raise TrustError("the new root has already expired", hint="look at the clocks, then sign again")
    for role in ONLINE_ROLES:
        try:
            signers_for(installation.layout.keys, role, new.roles[role], None)
        except (NotFoundError, UsageError):
            raise TrustError(f"the new root names {role} keys that this server does not hold") from None
    if not targets_follow:
        verify(new, "targets", repository.current_targets(session), "under the new root the targets role in force")
    change.add_role(stored("root", new, raw))
    return RoleAccepted(new.version, change.snapshot_version)


@dataclass(frozen=True, slots=True)
class SignedTogether:
    """What a ceremony made: a root, a targets role, or both, and the `repository.json` that the latter names."""

    root: bytes | None = None
    targets: bytes | None = None
    facts: bytes | None = None


def _without_what_is_in_force(session: Session, offered: SignedTogether) -> SignedTogether:
    root, targets = repository.in_force(session, "root"), repository.in_force(session, "targets")
    return SignedTogether(
        None if offered.root == root.raw else offered.root,
        None if offered.targets == targets.raw else offered.targets,
        offered.facts,
    )


def apply_together(change: Change, installation: Installation, offered: SignedTogether) -> RoleAccepted:
    """Let what was signed together take force together, within a change of the repository."""
    if offered.facts is not None:
        repository_facts.parse(offered.facts)
        change.add_document(target_path(TARGET, digest_of(offered.facts)), offered.facts)
    unsigned: tuple[str, ...] = ()
    if offered.root is not None:
        apply_root(change, offered.root, installation, targets_follow=offered.targets is not None)
    if offered.targets is not None:
        unsigned = apply_targets(change, offered.targets).unsigned_publishers
    version = repository.current_version(change.session, "targets" if offered.root is None else "root")
    return RoleAccepted(version, change.snapshot_version, unsigned)


def accept_together(installation: Installation, offered: SignedTogether, *, actor: str) -> RoleAccepted:
    """A ceremony's result. The same again is a success that changes nothing: an answer may have been lost."""
    if offered.root is None and offered.targets is None:
        raise UsageError("there is neither a root nor a targets role")
    with installation.database.read() as session:
        new = _without_what_is_in_force(session, offered)
        before = repository.current_root(session).signed
        if new.root is None and new.targets is None:
            role = "targets" if offered.root is None else "root"
            snapshot = repository.current_version(session, "snapshot")
            return RoleAccepted(repository.current_version(session, role), snapshot)
    with repository.changing(installation) as change:
        accepted = apply_together(change, installation, new)
        root = repository.current_root(change.session).signed
        versions = {"root": root.version, "targets": repository.current_version(change.session, "targets")}
        audit.record(change.session, change.now_s, actor, "roles.update", "root and targets", **versions)
    retire_keys(installation.layout.keys, before, root)
    _log.info("roles updated", extra=versions)
    return accepted


def accept_targets(installation: Installation, raw: bytes, *, actor: str) -> RoleAccepted:
    """A targets role that an administrator signed: publishers, their keys, `repository.json`."""
    with repository.changing(installation) as change:
        accepted = apply_targets(change, raw)
        audit.record(change.session, change.now_s, actor, "targets.update", "targets", version=accepted.version)
    _log.info("targets role updated", extra={"version": accepted.version})
    return accepted


def accept_root(installation: Installation, raw: bytes, *, actor: str) -> RoleAccepted:
    """The next root, signed by the keys of the current one and by its own."""
    with repository.changing(installation) as change:
        before = repository.current_root(change.session).signed
        accepted = apply_root(change, raw, installation)
        root = repository.current_root(change.session).signed
        audit.record(change.session, change.now_s, actor, "root.update", "root", version=accepted.version)
    retire_keys(installation.layout.keys, before, root)
    _log.info("root updated", extra={"version": accepted.version})
    return accepted
