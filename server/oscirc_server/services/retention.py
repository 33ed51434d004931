"""Retention at the server: a policy for each image, what it would delete, and what that would free. Only proposals.

What a deletion frees is counted from the tables: bytes of the files of those blocks and nodes that no other version's
disk needs and no draft leases. Tables of all other disks may have to be walked for it, so one is counted at a time, and
after `MAX_NODES` nodes the number is what it is by then: too large, and said to be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError, NotFoundError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.names import check_image, check_publisher
from oscirc_blockstore.retention import Choice, Policy, choose
from oscirc_server.collection.marking import Walker, lasting
from oscirc_server.database import chunks
from oscirc_server.installation import Installation
from oscirc_server.models import BlockRow, Document, ImageRow, Lease, ManifestRow, RetentionRow
from oscirc_server.services import audit, blocks

MAX_NODES = 200_000
COUNTING = "counting what a deletion frees"


@dataclass(frozen=True, slots=True)
class Freed:
    """Bytes that a deletion frees; at most so many where it is not exact."""

    freed_bytes: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy keeps and deletes now, and what the deletion would free."""

    policy: Policy
    choices: tuple[Choice, ...]
    freed: Freed


def index_of(session: Session, publisher: str, image: str) -> ImageIndex:
    """The index in force of a listed image, or `NotFoundError`."""
    row = session.get(ImageRow, (check_publisher(publisher), check_image(image)))
    if row is None or not row.listed:
        raise NotFoundError(f"this repository has no image {publisher}/{image}")
    return image_index.parse(session.get_one(Document, row.index_path).raw, publisher, image)


def policy_of(session: Session, publisher: str, image: str) -> Policy:
    """The image's policy; one that keeps everything where none was set."""
    index_of(session, publisher, image)
    row = session.get(RetentionRow, (publisher, image))
    return Policy() if row is None else Policy(row.keep_last, row.keep_days)


def set_policy(installation: Installation, publisher: str, image: str, policy: Policy, *, actor: str) -> None:
    """Keep an image's policy; one that keeps everything is none."""
    now_s = installation.now_s()
    with installation.database.write(durable=True) as session:
        index_of(session, publisher, image)
        session.execute(delete(RetentionRow).where(RetentionRow.publisher == publisher, RetentionRow.image == image))
        facts = {"keep_last": policy.keep_last, "keep_days": policy.keep_days}
        if not policy.keeps_everything:
            session.add(RetentionRow(publisher=publisher, image=image, updated_s=now_s, **facts))
        audit.record(session, now_s, actor, "retention.set", f"{publisher}/{image}", **facts)


def plan(installation: Installation, publisher: str, image: str) -> Plan:
    """What the image's policy would delete now."""
    with installation.database.read() as session:
        index = index_of(session, publisher, image)
        policy = policy_of(session, publisher, image)
    choices = choose(index, policy, datetime.fromtimestamp(installation.now_s(), UTC))
    labels = [choice.version.label for choice in choices if not choice.is_kept]
    return Plan(policy, choices, freed_by(installation, publisher, image, labels))


def freed_by(installation: Installation, publisher: str, image: str, labels: Sequence[str]) -> Freed:
    """What deleting these versions would free; `BusyError` while another such count is under way."""
    with installation.database.read() as session:
        index = index_of(session, publisher, image)
    going = {index.version(label).manifest for label in labels}
    going -= {version.manifest for version in index.versions if version.label not in labels}
    with installation.locks.try_held(COUNTING) as held:
        if held is None:
            raise BusyError("another such count is under way", hint="try again in a while")
        return _count(installation, going) if going else Freed(0, is_exact=True)


class _EnoughError(Exception):
    """Nothing is left to look for, or too much was looked at."""


def _count(installation: Installation, going: Collection[Digest]) -> Freed:
    left: set[Digest] = set()
    with Walker(installation, lambda found: left.update(map(Digest, found))) as walker:
        for digest in going:
            walker.walk_manifest(digest)
    with installation.database.read() as session:
        others = [Digest(raw) for raw in session.scalars(select(ManifestRow.digest)) if raw not in going]
    is_exact = True
    try:
        _take_away(installation, left, others)
    except _EnoughError:
        is_exact = not left
    return Freed(_stored_bytes(installation, left), is_exact)


def _take_away(installation: Installation, left: set[Digest], manifests: Sequence[Digest]) -> None:
    """Leave in `left` what these manifests do not need."""

    def needed(found: Sequence[bytes]) -> None:
        left.difference_update(map(Digest, found))
        if not left or walker.nodes > MAX_NODES:
            raise _EnoughError

    walker = Walker(installation, needed)
    with walker:
        for digest in manifests:
            walker.walk_manifest(digest)


def _stored_bytes(installation: Installation, digests: Collection[Digest]) -> int:
    total = 0
    for chunk in chunks(sorted(digests)):
        with installation.database.read() as session:
            leases = select(Lease.digest).where(Lease.digest.in_(chunk), lasting(installation.now_s()))
            leased = set(session.scalars(leases))
            query = select(BlockRow.digest, BlockRow.stored_length).where(BlockRow.digest.in_(chunk))
            for digest, length in session.execute(query.where(BlockRow.state.in_(blocks.HERE))):
                total += 0 if digest in leased else length
    return total
