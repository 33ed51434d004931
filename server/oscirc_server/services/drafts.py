"""Drafts: a publisher's session before anything is visible. It negotiates, holds the manifest, and leases blocks.

A draft lives for a week after it was last used. Its lease covers every block that it was told is present and every
block that it uploads, so that nothing it relies on is collected while it lives. What is being deleted counts as
missing: its upload waits until it is gone.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import delete, exists, func, select, update
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
from oscirc_server.models import DRAFT_OPEN, DRAFT_RELEASED, Document, Draft, ImageRow, Lease
from oscirc_server.services import audit, blocks, quotas

MAX_OPEN_DRAFTS = 100  # of one publisher
MAX_DIGESTS = 65_536
VERIFYING_S = 900


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
    phase: str = "draft"
    created_s: int = 0


def _phase(session: Session, draft: Draft, now_s: int) -> str:
    """How far the version that it is for has come: draft, uploading, verifying, released."""
    if draft.state == DRAFT_RELEASED:
        return "released"
    if draft.verifying_until_s is not None and draft.verifying_until_s > now_s:
        return "verifying"
    if draft.manifest is not None or session.scalar(select(exists().where(Lease.draft_id == draft.id))):
        return "uploading"
    return "draft"


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


def _facts(session: Session, draft: Draft, now_s: int) -> DraftFacts:
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
        _phase(session, draft, now_s),
        draft.created_s,
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
        return _facts(session, find(session, draft_id), installation.now_s())


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
            return _facts(session, draft, now_s), False
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
        return _facts(session, draft, now_s), True


def page(
    installation: Installation,
    publishers: Collection[str] | None,
    *,
    publisher: str = "",
    image: str = "",
    after: str = "",
    limit: int,
) -> tuple[list[DraftFacts], str | None]:
    """Drafts of these publishers (None: of all), by their ids, after one; and the next place, None at the end."""
    statement = select(Draft).where(Draft.id > after)
    if publishers is not None:
        statement = statement.where(Draft.publisher.in_(sorted(publishers)))
    if publisher:
        statement = statement.where(Draft.publisher == publisher)
    if image:
        statement = statement.where(Draft.image == image)
    now_s = installation.now_s()
    with installation.database.read() as session:
        rows = list(session.scalars(statement.order_by(Draft.id).limit(limit + 1)))
        found = [_facts(session, draft, now_s) for draft in rows[:limit]]
    return found, rows[limit - 1].id if len(rows) > limit else None


def open_for(installation: Installation, publisher: str, image: str, version: str) -> DraftFacts | None:
    """The draft that is open for these names, if any."""
    same = (Draft.publisher == publisher, Draft.image == image, Draft.version == version, Draft.state == DRAFT_OPEN)
    with installation.database.read() as session:
        draft = session.scalar(select(Draft).where(*same))
        return None if draft is None else _facts(session, draft, installation.now_s())


@contextlib.contextmanager
def verifying(installation: Installation, draft_id: str) -> Iterator[None]:
    """While this lasts the draft shows as being verified; a crash is forgotten after a quarter of an hour."""

    def mark(until_s: int | None) -> None:
        with installation.database.write() as session:
            session.execute(update(Draft).where(Draft.id == draft_id).values(verifying_until_s=until_s))

    mark(installation.now_s() + VERIFYING_S)
    try:
        yield
    finally:
        mark(None)


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
        present = blocks.claim(session, draft_id, asked, durable=installation.storage.durable_on_put).present
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


def discard(installation: Installation, draft_id: str, *, actor: str) -> None:
    """End a draft that was not released, and its leases; uploaded blocks stay until they are collected."""
    now_s = installation.now_s()
    with installation.database.write() as session:
        draft = find_open(session, draft_id)
        quotas.abandon(session, {draft_id: draft.publisher})
        subject = f"{draft.publisher}/{draft.image}@{draft.version}"
        session.delete(draft)
        audit.record(session, now_s, actor, "draft.discard", subject, draft=draft_id)


def expire(installation: Installation) -> int:
    """End the drafts whose time is over; returns how many of them were open."""
    overdue, is_open = Draft.expires_s <= installation.now_s(), Draft.state == DRAFT_OPEN
    with installation.database.write() as session:
        ended = {draft.id: draft.publisher for draft in session.scalars(select(Draft).where(overdue, is_open))}
        quotas.abandon(session, ended)
        session.execute(delete(Draft).where(overdue))
    return len(ended)
