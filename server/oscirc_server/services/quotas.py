"""Quotas: what a publisher keeps here, counted as it comes, and refused before it comes.

- **Unique bytes**: the uncompressed sizes of the distinct blocks and nodes that the publisher's listed versions name,
  and those that its open drafts have asked about. What two publishers share counts for each. A digest that is not
  here yet counts as a whole block of its draft until its frame arrives.
- **Logical bytes**: of every version in the publisher's listed indexes, withdrawn ones included and deleted ones not,
  its blocks of data times their size. Zeros count for nothing in either.

Each step works on the rows of `holdings` that it concerns, in the transaction of whoever calls it, behind a lock on the
publisher's row: drafts side by side cannot go beyond a limit together. A limit refuses what would be more, never what
is there. Deletions set `recount_due`; `recounting` then counts from the signed tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import QuotaExceededError, UsageError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_publisher
from oscirc_server.database import chunks, insert_new
from oscirc_server.installation import Installation
from oscirc_server.models import Holding, ImageRow, ImageUsage, ManifestRow, PublisherUsage, Quota
from oscirc_server.services import audit

EVERYBODY = "*"
"""The name under which the limits of whoever has none of his own stand."""

MAX_LIMIT_BYTES = 1 << 60
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes; None where there is no limit."""

    unique_bytes: int | None = None
    logical_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a publisher keeps, and may keep; `counting` while a deletion has not been counted yet."""

    publisher: str
    unique_bytes: int
    logical_bytes: int
    limits: Limits
    counting: bool


def limits_of(session: Session, publisher: str) -> Limits:
    """A publisher's own limits, else everybody's."""
    row = session.get(Quota, publisher) or session.get(Quota, EVERYBODY)
    return Limits() if row is None else Limits(row.unique_limit, row.logical_limit)


def usage(session: Session, publisher: str) -> Usage:
    """What a publisher keeps and may keep."""
    row = session.get(PublisherUsage, publisher)
    return Usage(
        publisher,
        0 if row is None else row.unique_bytes,
        logical_bytes(session, publisher),
        limits_of(session, publisher),
        counting=row is not None and row.recount_due,
    )


def largest(session: Session, most: int) -> tuple[list[tuple[str, int]], int]:
    """Who keeps the most unique bytes, and how many; and how many publishers more keep something."""
    ordered = select(PublisherUsage.publisher, PublisherUsage.unique_bytes).order_by(
        PublisherUsage.unique_bytes.desc(), PublisherUsage.publisher
    )
    found = [(publisher, unique_bytes) for publisher, unique_bytes in session.execute(ordered.limit(most))]
    known = session.scalar(select(func.count()).select_from(PublisherUsage)) or 0
    return found, known - len(found)


def set_limits(installation: Installation, publisher: str, limits: Limits, *, actor: str) -> None:
    """A publisher's limits, or those of `EVERYBODY`; what is above them stays, and nothing more comes."""
    if publisher != EVERYBODY:
        check_publisher(publisher)
    for value in (limits.unique_bytes, limits.logical_bytes):
        if value is not None and not 0 <= value <= MAX_LIMIT_BYTES:
            raise UsageError(f"a limit is 0 to {MAX_LIMIT_BYTES} bytes")
    now_s = installation.now_s()
    facts = {"unique": limits.unique_bytes, "logical": limits.logical_bytes}
    with installation.database.write(durable=True) as session:
        session.merge(Quota(publisher=publisher, unique_limit=limits.unique_bytes, logical_limit=limits.logical_bytes))
        audit.record(session, now_s, actor, "quota.set", publisher, **facts)


def drop_limits(installation: Installation, publisher: str, *, actor: str) -> None:
    """Let a publisher have no limits of its own: everybody's hold."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        session.execute(delete(Quota).where(Quota.publisher == publisher))
        audit.record(session, now_s, actor, "quota.drop", publisher)


def logical_bytes(session: Session, publisher: str) -> int:
    """Of every version in the publisher's listed indexes."""
    listed = (ImageRow.publisher == ImageUsage.publisher) & (ImageRow.image == ImageUsage.image) & ImageRow.listed
    summed = select(func.sum(ImageUsage.logical_bytes)).join(ImageRow, listed).where(ImageUsage.publisher == publisher)
    return int(session.scalar(summed) or 0)


def locked(session: Session, publisher: str) -> PublisherUsage:
    """The publisher's row, which nobody else has until this transaction ends. A new one is counted soon."""
    query = select(PublisherUsage).where(PublisherUsage.publisher == publisher).with_for_update()
    row = session.scalar(query)
    if row is None:
        known = session.scalar(select(ImageRow.image).where(ImageRow.publisher == publisher).limit(1)) is not None
        insert_new(session, PublisherUsage, [{"publisher": publisher, "unique_bytes": 0, "recount_due": known}])
        row = session.scalars(query).one()
    return row


def reserve(session: Session, publisher: str, draft_id: str, sizes: Mapping[Digest, int]) -> None:
    """A draft is about to bring these, or relies on them; raises `QuotaExceededError` before a byte of them came."""
    row = locked(session, publisher)
    limits = limits_of(session, publisher)
    largest = max(sizes.values(), default=0)
    _refuse_logical(limits, publisher, logical_bytes(session, publisher), largest)
    held = _held(session, publisher, list(sizes))
    new = {digest: size for digest, size in sizes.items() if digest not in held}
    _refuse_unique(limits, row, sum(new.values()))
    _insert(session, row, new, draft_id)


def arrived(session: Session, publisher: str, draft_id: str, found: Iterable[tuple[Digest, int]]) -> None:
    """The frames of these are here: they count what they hold, whether the draft had asked about them or not."""
    row = locked(session, publisher)
    sizes = dict(found)
    held = _held(session, publisher, list(sizes))
    _correct(session, row, held, sizes)
    _insert(session, row, {digest: size for digest, size in sizes.items() if digest not in held}, draft_id)


def require_room(session: Session, publisher: str) -> None:
    """Raise `QuotaExceededError` where nothing more may come: asked before a body of frames is read."""
    row = session.get(PublisherUsage, publisher)
    limits = limits_of(session, publisher)
    if row is not None and limits.unique_bytes is not None and row.unique_bytes > limits.unique_bytes:
        _refuse_unique(limits, row, 1)


def settle(session: Session, publisher: str, draft_id: str, sizes: Mapping[Digest, int]) -> None:
    """A draft becomes a version that names these: judged once more, whatever was reserved or came unasked."""
    row = locked(session, publisher)
    held = _held(session, publisher, list(sizes))
    _correct(session, row, held, sizes)
    reserved = [digest for digest, (_, owner) in held.items() if owner is not None]
    for chunk in chunks(reserved):
        session.execute(
            update(Holding)
            .where(Holding.publisher == publisher, Holding.digest.in_(chunk))
            .values(draft_id=None)
            .execution_options(synchronize_session=False)
        )
    _give_back(session, row, [draft_id])
    new = {digest: size for digest, size in sizes.items() if digest not in held}
    brought = sum(sizes[digest] for digest in reserved)
    used = row.unique_bytes - brought
    _refuse("unique", limits_of(session, publisher).unique_bytes, publisher, used, brought + sum(new.values()))
    _insert(session, row, new, None)


def abandon(session: Session, drafts: Mapping[str, str]) -> None:
    """These drafts (publisher by id) end without a release: what only they asked about counts no more."""
    for publisher in sorted(set(drafts.values())):
        ended = [draft_id for draft_id, of in drafts.items() if of == publisher]
        _give_back(session, locked(session, publisher), ended)


def follow(session: Session, publisher: str, indexes: Sequence[ImageIndex], *, recount: bool) -> None:
    """The publisher's indexes that changed are these now, and listed; raises `QuotaExceededError` where that is more.

    `recount`: blocks came or went with it that no draft brought.
    """
    row = locked(session, publisher)
    row.recount_due = row.recount_due or recount
    before = logical_bytes(session, publisher)
    for index in indexes:
        size = index_bytes(session, index)
        session.merge(ImageUsage(publisher=publisher, image=index.image, logical_bytes=size))
    session.flush()
    after = logical_bytes(session, publisher)
    if after > before:
        _refuse_logical(limits_of(session, publisher), publisher, before, after - before)


def index_bytes(session: Session, index: ImageIndex) -> int:
    """The logical bytes of an image's versions."""
    total = 0
    for version in index.versions:
        row = session.get(ManifestRow, version.manifest)
        if row is not None:
            manifest = parse_manifest(row.raw)
            total += manifest.data_blocks * manifest.geometry.block_size
    return total


def _held(session: Session, publisher: str, digests: Sequence[Digest]) -> dict[Digest, tuple[int, str | None]]:
    found: dict[Digest, tuple[int, str | None]] = {}
    for chunk in chunks(digests):
        query = select(Holding.digest, Holding.size, Holding.draft_id)
        for digest, size, owner in session.execute(
            query.where(Holding.publisher == publisher, Holding.digest.in_(chunk))
        ):
            found[Digest(digest)] = (size, owner)
    return found


def _correct(
    session: Session,
    row: PublisherUsage,
    held: Mapping[Digest, tuple[int, str | None]],
    sizes: Mapping[Digest, int],
) -> None:
    """What drafts reserved is as large as is known by now."""
    for digest, (size, owner) in held.items():
        if owner is not None and size != sizes[digest]:
            key = (Holding.publisher == row.publisher, Holding.digest == digest)
            session.execute(update(Holding).where(*key).values(size=sizes[digest]))
            row.unique_bytes += sizes[digest] - size


def _insert(session: Session, row: PublisherUsage, new: Mapping[Digest, int], draft_id: str | None) -> None:
    rows = [
        {"publisher": row.publisher, "digest": digest, "size": size, "draft_id": draft_id}
        for digest, size in new.items()
    ]
    insert_new(session, Holding, rows)
    row.unique_bytes += sum(new.values())
    session.flush()


def _give_back(session: Session, row: PublisherUsage, drafts: Sequence[str]) -> None:
    for chunk in chunks(drafts):
        mine = (Holding.publisher == row.publisher, Holding.draft_id.in_(chunk))
        row.unique_bytes -= int(session.scalar(select(func.sum(Holding.size)).where(*mine)) or 0)
        session.execute(delete(Holding).where(*mine))


def _refuse_unique(limits: Limits, row: PublisherUsage, added: int) -> None:
    _refuse("unique", limits.unique_bytes, row.publisher, row.unique_bytes, added)


def _refuse_logical(limits: Limits, publisher: str, used: int, added: int) -> None:
    _refuse("logical", limits.logical_bytes, publisher, used, added)


def _refuse(kind: str, limit: int | None, publisher: str, used: int, added: int) -> None:
    if limit is None or not added or used + added <= limit:
        return
    raise QuotaExceededError(
        f"{publisher} may keep {_human(limit)} ({kind}): {_human(used)} are used, {_human(added)} would come",
        hint="delete versions that nobody needs, or ask the administrator for more",
        facts={"quota": kind, "limit_bytes": limit, "used_bytes": used, "new_bytes": added},
    )


def _human(count: int) -> str:
    value, unit = float(count), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"
