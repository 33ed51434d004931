"""Drafts: a publisher's session before anything is visible. It negotiates, holds the manifest, and leases blocks.

A draft lives for a week after it was last used. Its lease covers every block that it was told is present and every
block that it uploaded, so that nothing it relies on is collected while it lives.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_image, check_publisher, check_version
from oscirc_blockstore.table import Geometry
from oscirc_server import delegations, repository
from oscirc_server.errors import ConflictError, RequestRefusedError
from oscirc_server.installation import Installation
from oscirc_server.models import DRAFT_OPEN, Document, Draft, ImageRow
from oscirc_server.services import blocks, quotas

MAX_OPEN_DRAFTS = 100  # of one publisher
MAX_DIGESTS = 65_536


@dataclass(frozen=True, slots=True)
class DraftFacts:
    """A draft as a client sees it; `released_manifest` is the digest that this version has already, if it has one."""

    id: str
    publisher: str
    image: str
    version: str
    block_size: int
    state: str
    expires_s: int
    has_manifest: bool
    released_manifest: str | None


def released_manifest(session: Session, publisher: str, image: str, version: str) -> Digest | None:
    """The manifest that a version was released with, or None when it was not."""
    row = session.get(ImageRow, (publisher, image))
    document = None if row is None else session.get(Document, row.index_path)
    if document is None:
        return None
    for known in image_index.parse(document.raw, publisher, image).versions:
        if known.label == version:
            return known.manifest
    return None


def require_unused(session: Session, publisher: str, image: str, version: str) -> None:
    """Raise `ConflictError` for a label that was deleted, or an image that was: neither is ever used again."""
    row = session.get(ImageRow, (publisher, image))
    document = None if row is None else session.get(Document, row.index_path)
    if document is None:
        return
    index = image_index.parse(document.raw, publisher, image)
    if index.closed:
        raise ConflictError(f"{publisher}/{image} was deleted: its name is never used again", hint="choose another")
    if index.tombstone(version) is not None:
        raise ConflictError(
            f"{publisher}/{image}@{version} was released and deleted: a label is never used again",
            hint="choose a new version label",
        )


def _facts(session: Session, draft: Draft) -> DraftFacts:
    released = released_manifest(session, draft.publisher, draft.image, draft.version)
    return DraftFacts(
        draft.id,
        draft.publisher,
        draft.image,
        draft.version,
        draft.block_size,
        draft.state,
        draft.expires_s,
        draft.manifest is not None,
        None if released is None else released.hex(),
    )


def find(session: Session, draft_id: str, *, lock: bool = False) -> Draft:
    """The draft's row, or `NotFoundError`."""
    draft = session.get(Draft, draft_id, with_for_update=True if lock else None)
    if draft is None:
        raise NotFoundError(f"there is no draft {draft_id[:32]!r}", hint="it may have expired: publish again")
    return draft


def find_open(session: Session, draft_id: str) -> Draft:
    """The draft's row, locked for this write, or `NotFoundError`, or `ConflictError` once it was released."""
    draft = find(session, draft_id, lock=True)
    if draft.state != DRAFT_OPEN:
        raise ConflictError(f"the draft {draft_id} is {draft.state} already")
    return draft


def require_open(draft: DraftFacts) -> None:
    """Raise `ConflictError` unless more can be put into the draft."""
    if draft.state != DRAFT_OPEN:
        raise ConflictError(f"the draft {draft.id} is {draft.state} already")


def require_room(installation: Installation, draft: DraftFacts) -> None:
    """Raise `QuotaExceededError` where the draft's publisher keeps more than it may: nothing more is taken."""
    with installation.database.read() as session:
        quotas.require_room(session, draft.publisher)


def get(installation: Installation, draft_id: str) -> DraftFacts:
    """The draft as a client sees it."""
    with installation.database.read() as session:
        return _facts(session, find(session, draft_id))


def open_draft(
    installation: Installation, publisher: str, image: str, version: str, block_size: int
) -> tuple[DraftFacts, bool]:
    """A new draft and True, or the one that is open for these three names (maybe of another block size) and False."""
    check_publisher(publisher)
    check_image(image)
    check_version(version)
    Geometry(block_size, block_size)  # judges the block size
    now_s = installation.now_s()
    expires_s = now_s + installation.settings.draft_lifetime_s
    with installation.database.write() as session:
        delegations.delegation(repository.current_targets(session).signed, publisher)
        require_unused(session, publisher, image, version)
        same = select(Draft).where(
            Draft.publisher == publisher, Draft.image == image, Draft.version == version, Draft.state == DRAFT_OPEN
        )
        draft = session.scalar(same)
        if draft is not None:
            draft.expires_s = expires_s
            return _facts(session, draft), False
        of_publisher = (Draft.publisher == publisher, Draft.state == DRAFT_OPEN)
        if (session.scalar(select(func.count()).select_from(Draft).where(*of_publisher)) or 0) >= MAX_OPEN_DRAFTS:
            raise ConflictError(f"{publisher} has {MAX_OPEN_DRAFTS} open drafts", hint="release or discard some")
        draft = Draft(
            id=secrets.token_hex(16),
            publisher=publisher,
            image=image,
            version=version,
            block_size=block_size,
            state=DRAFT_OPEN,
            created_s=now_s,
            expires_s=expires_s,
        )
        session.add(draft)
        session.flush()
        return _facts(session, draft), True


def touch(installation: Installation, session: Session, draft_id: str) -> None:
    """The draft is in use: it lives for its full time again."""
    expires_s = installation.now_s() + installation.settings.draft_lifetime_s
    session.execute(update(Draft).where(Draft.id == draft_id).values(expires_s=expires_s))


def missing(installation: Installation, draft_id: str, raw: bytes) -> bytes:
    """Of the 32-byte digests in `raw`, those that the store lacks, in order; the others are leased to the draft."""
    if len(raw) % len(ZERO_DIGEST) or len(raw) > MAX_DIGESTS * len(ZERO_DIGEST):
        raise RequestRefusedError(f"the body is not a list of at most {MAX_DIGESTS} digests of 32 bytes")
    asked = list(dict.fromkeys(Digest(raw[at : at + 32]) for at in range(0, len(raw), 32)))
    if ZERO_DIGEST in asked:
        raise RequestRefusedError("the zero digest names no block")
    with installation.database.write(shared=True) as session:
        draft = find_open(session, draft_id)
        present = blocks.stored(session, asked)
        blocks.lease(session, draft_id, present)
        sizes = {digest: present[digest].raw_size if digest in present else draft.block_size for digest in asked}
        quotas.reserve(session, draft.publisher, draft_id, sizes)
        touch(installation, session, draft_id)
    return b"".join(digest for digest in asked if digest not in present)


def put_manifest(installation: Installation, draft_id: str, raw: bytes) -> None:
    """Keep the draft's manifest, once it is one of this very draft."""
    manifest = parse_manifest(raw)
    with installation.database.write() as session:
        draft = find_open(session, draft_id)
        if (manifest.publisher, manifest.image) != (draft.publisher, draft.image):
            raise DocumentRefusedError(
                f"the manifest is of {manifest.publisher}/{manifest.image}, "
                f"the draft of {draft.publisher}/{draft.image}"
            )
        if manifest.geometry.block_size != draft.block_size:
            raise DocumentRefusedError(
                f"the manifest states blocks of {manifest.geometry.block_size} bytes, the draft {draft.block_size}"
            )
        released = released_manifest(session, draft.publisher, draft.image, draft.version)
        if released is not None and released != digest_of(raw):
            raise ConflictError(
                f"{draft.publisher}/{draft.image}@{draft.version} is already released with another disk",
                hint="a released version never changes: choose a new version label",
            )
        draft.manifest = raw
        touch(installation, session, draft_id)


def discard(installation: Installation, draft_id: str) -> None:
    """End a draft that was not released, and its leases; uploaded blocks stay until they are collected."""
    with installation.database.write() as session:
        draft = find_open(session, draft_id)
        quotas.abandon(session, {draft_id: draft.publisher})
        session.delete(draft)


def expire(installation: Installation) -> int:
    """End the drafts whose time is over; returns how many of them were open."""
    overdue, is_open = Draft.expires_s <= installation.now_s(), Draft.state == DRAFT_OPEN
    with installation.database.write() as session:
        ended = {draft.id: draft.publisher for draft in session.scalars(select(Draft).where(overdue, is_open))}
        quotas.abandon(session, ended)
        session.execute(delete(Draft).where(overdue))
    return len(ended)
