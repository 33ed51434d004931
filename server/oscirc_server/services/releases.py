"""Release: a draft becomes a version, at once and for ever; and roles that bring no new disk (channels, yanks).

The order of the checks is that of ADR 0002. What takes long (reading the table, syncing the store) is done before
the writer's lock is taken; what decides is judged again under it, on the transaction that commits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import TrustError
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_server import repository
from oscirc_server.errors import ConflictError, MissingBlocksError, RoleConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import DRAFT_RELEASED, Draft
from oscirc_server.services import accelerators, acceptance, audit, blocks, drafts, jobs, quotas
from oscirc_server.services.acceptance import Accepted, Offer
from oscirc_server.services.completeness import AGAIN, Completeness, Remembered, check_complete

_remembered = Remembered()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Released:
    """What took force: the version of the publisher's role, of the snapshot that shows it, and the disk released."""

    role_version: int
    snapshot_version: int
    manifest: Digest | None = None


def _released_before(installation: Installation, draft: Draft, role: bytes) -> Released:
    """The answer that was lost on its way, when the very same release is asked for again."""
    if draft.role_digest != digest_of(role) or draft.role_version is None or draft.snapshot_version is None:
        raise ConflictError(f"the draft {draft.id} is released already")
    repository.complete_projection(installation)
    released = None if draft.manifest is None else digest_of(draft.manifest)
    return Released(draft.role_version, draft.snapshot_version, released)


def _judge(session: Session, offer: Offer, draft: Draft, now_s: float) -> Accepted:
    """The rules of `acceptance`, and: the role's index names the draft's version with the draft's manifest."""
    accepted = acceptance.judge(session, offer, now_s)
    index = acceptance.index_of(session, accepted, draft.publisher, draft.image)
    released = {version.label: version.manifest for version in index.versions} if index else {}
    if released.get(draft.version) not in offer.manifests:
        raise TrustError(f"the role does not release {draft.image}@{draft.version} with the draft's manifest")
    return accepted


def release(
    installation: Installation, draft_id: str, role: bytes, indexes: Mapping[str, bytes], *, actor: str
) -> Released:
    """Make the draft's version visible, or raise and change nothing; the same call again gives the same answer."""
    with installation.database.read() as session:
        draft = drafts.find(session, draft_id)
    if draft.state == DRAFT_RELEASED:
        return _released_before(installation, draft, role)
    raw = draft.manifest
    if raw is None:
        raise ConflictError(f"the draft {draft_id} has no manifest yet", hint="PUT its manifest first")
    with drafts.verifying(installation, draft_id):
        return _release(installation, draft, raw, role, indexes, actor)


def _release(
    installation: Installation, draft: Draft, raw: bytes, role: bytes, indexes: Mapping[str, bytes], actor: str
) -> Released:
    draft_id = draft.id
    manifest, digest = parse_manifest(raw), digest_of(raw)
    complete = _remembered.take(draft_id, digest) or check_complete(installation, manifest, draft_id)
    offer = Offer(draft.publisher, role, indexes, {digest: manifest})
    try:
        with installation.database.read() as session:
            _judge(session, offer, draft, installation.now_s())
        if complete.staged and not complete.is_synced:
            installation.storage.sync()
            complete = replace(complete, is_synced=True)
        return _take_force(installation, draft_id, raw, complete, offer, actor)
    except RoleConflictError:
        _remembered.put(draft_id, digest, complete)
        raise


def _take_force(
    installation: Installation, draft_id: str, raw: bytes, complete: Completeness, offer: Offer, actor: str
) -> Released:
    digest = digest_of(raw)
    with repository.changing(installation) as change:
        draft = drafts.find_open(change.session, draft_id)
        accepted = _judge(change.session, offer, draft, change.now_s)
        blocks.promote(change.session, complete.staged)
        lost = len(complete.staged) - len(blocks.stored(change.session, complete.staged))
        if lost:  # another machine that shares the directory has started again meanwhile
            raise MissingBlocksError(f"{lost} blocks may not have reached the disk", missing=lost, hint=AGAIN)
        change.add_manifest(digest, raw, complete.stored_bytes)
        quotas.settle(change.session, draft.publisher, draft_id, complete.sizes)
        acceptance.apply(change, accepted, brought=frozenset((digest,)))
        draft.state = DRAFT_RELEASED
        draft.role_digest = digest_of(offer.role)
        draft.role_version = accepted.signature.version
        draft.snapshot_version = change.snapshot_version
        # Its leases stay until a collection has begun that sees the manifest (`collection.marking`).
        draft.expires_s = change.now_s + installation.settings.draft_lifetime_s
        jobs.note(change.session, draft.publisher, offer.indexes, change.now_s)
        subject = f"{draft.publisher}/{draft.image}@{draft.version}"
        audit.record(change.session, change.now_s, actor, "release", subject, manifest=digest.hex())
    accelerators.follow(installation, draft.publisher, offer.indexes)
    _log.info("released", extra={"version": subject, "snapshot": change.snapshot_version})
    return Released(accepted.signature.version, change.snapshot_version, digest)


def update_role(
    installation: Installation, publisher: str, role: bytes, indexes: Mapping[str, bytes], *, actor: str
) -> Released:
    """Let a publisher's role take force that brings no new disk: channels, yanks, a renewed signature.

    The role in force, offered again, gives the same answer again: the first one may have been lost on its way.
    """
    with installation.database.read() as session:
        row = repository.current(session, publisher)
        snapshot = repository.current_version(session, "snapshot")
    if row is not None and row.raw == role:
        repository.complete_projection(installation)
        return Released(row.version, snapshot)
    offer = Offer(publisher, role, indexes)
    with repository.changing(installation) as change:
        accepted = acceptance.judge(change.session, offer, change.now_s)
        acceptance.apply(change, accepted)
        jobs.note(change.session, publisher, indexes, change.now_s)
        audit.record(change.session, change.now_s, actor, "role.update", publisher, version=accepted.signature.version)
    accelerators.follow(installation, publisher, indexes)
    _log.info("role updated", extra={"publisher": publisher, "snapshot": change.snapshot_version})
    return Released(accepted.signature.version, change.snapshot_version)
