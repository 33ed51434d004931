"""Counts what a publisher keeps from the signed tables, and compares: after deletions, and for whoever doubts.

The walk runs beside the server and takes as long as it takes; what it found is taken over in one transaction, behind
the lock that every other change of the publisher's holdings takes, and only if the publisher's role is the one that the
walk began with. Some 100 bytes of memory for each distinct block.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index
from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import BusyError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server import repository
from oscirc_server.database import chunks, insert_new
from oscirc_server.errors import MissingBlocksError
from oscirc_server.installation import Installation
from oscirc_server.models import Document, Holding, ImageRow, ImageUsage, ManifestRow, PublisherUsage
from oscirc_server.services import quotas

TRIES = 5
_NODES_KEPT = 512

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recount:
    """What was recorded and what was counted, in bytes; rows that were lacking, and rows that nothing names."""

    publisher: str
    recorded_unique: int
    counted_unique: int
    recorded_logical: int
    counted_logical: int
    lacking_rows: int
    surplus_rows: int

    @property
    def drifted(self) -> bool:
        """Whether the two differ."""
        unique = self.recorded_unique != self.counted_unique or self.lacking_rows or self.surplus_rows
        return bool(unique) or self.recorded_logical != self.counted_logical


@dataclass(frozen=True, slots=True)
class _Walked:
    role_version: int
    sizes: dict[Digest, int]
    logical: dict[str, int]


def recount(installation: Installation, publisher: str, *, repair: bool) -> Recount:
    """Count a publisher; with `repair` what was counted is what is recorded from then on.

    Raises `BusyError` when the publisher released something each time, and `MissingBlocksError` for a damaged store.
    """
    for _ in range(TRIES):
        walked = _walk(installation, publisher)
        with installation.database.write(durable=repair) as session:
            row = quotas.locked(session, publisher)
            if repository.current_version(session, publisher) != walked.role_version:
                continue
            return _compare(session, row, walked, repair=repair)
    raise BusyError(f"{publisher} changed while it was counted", hint="try again")


def recount_due(installation: Installation) -> list[Recount]:
    """Count those of whom something was deleted, and those who were never counted."""
    with installation.database.read() as session:
        due = set(session.scalars(select(PublisherUsage.publisher).where(PublisherUsage.recount_due)))
        due |= set(session.scalars(select(ImageRow.publisher).distinct()))
        due -= set(session.scalars(select(PublisherUsage.publisher).where(~PublisherUsage.recount_due)))
    counted = []
    for publisher in sorted(due):
        try:
            counted.append(recount(installation, publisher, repair=True))
        except OscircError as error:
            _log.error("a publisher could not be counted", extra={"publisher": publisher, "error": str(error)})
    return counted


def publishers(session: Session) -> list[str]:
    """Whoever keeps something here."""
    found = set(session.scalars(select(PublisherUsage.publisher))) | set(
        session.scalars(select(ImageRow.publisher).distinct())
    )
    return sorted(found)


def _walk(installation: Installation, publisher: str) -> _Walked:
    with installation.database.read() as session:
        version = repository.current_version(session, publisher)
        indexes = list(_listed(session, publisher))
        logical = {index.image: quotas.index_bytes(session, index) for index in indexes}
        manifests = {each.manifest for index in indexes for each in index.versions}
        rows = [session.get(ManifestRow, digest) for digest in sorted(manifests)]
        parsed = [parse_manifest(row.raw) for row in rows if row is not None]
    sizes: dict[Digest, int] = {}
    load = _loader(installation)
    for manifest in parsed:
        _add(sizes, manifest, load)
    return _Walked(version, sizes, logical)


def _listed(session: Session, publisher: str) -> list[ImageIndex]:
    rows = session.scalars(select(ImageRow).where(ImageRow.publisher == publisher, ImageRow.listed))
    found = [(row.image, session.get_one(Document, row.index_path).raw) for row in rows]
    return [image_index.parse(raw, publisher, image) for image, raw in found]


def _add(sizes: dict[Digest, int], manifest: Manifest, load: Callable[[Digest], bytes]) -> None:
    table = contents(manifest.geometry, manifest.root, load)
    sizes.update(dict.fromkeys(table.nodes, NODE_SIZE))
    sizes.update(dict.fromkeys(table.blocks, manifest.geometry.block_size))


def _loader(installation: Installation) -> Callable[[Digest], bytes]:
    @functools.lru_cache(_NODES_KEPT)
    def load(digest: Digest) -> bytes:
        frame = installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
        if frame is None:
            raise MissingBlocksError(f"the node {digest.hex()} is not here", missing=1)
        return decode_verified(frame, NODE_SIZE, digest)

    return load


def _compare(session: Session, row: PublisherUsage, walked: _Walked, *, repair: bool) -> Recount:
    publisher = row.publisher
    reserved = 0
    surplus: list[bytes] = []
    wrong: list[Digest] = []
    lacking = dict(walked.sizes)
    query = select(Holding.digest, Holding.size, Holding.draft_id).where(Holding.publisher == publisher)
    for digest, size, owner in session.execute(query.execution_options(yield_per=10_000)):
        expected = lacking.pop(Digest(digest), None)
        if expected is None:
            if owner is None:
                surplus.append(digest)
            else:
                reserved += size
        elif expected != size or owner is not None:
            wrong.append(Digest(digest))
    recorded, recorded_logical = row.unique_bytes, quotas.logical_bytes(session, publisher)
    counted = sum(walked.sizes.values()) + reserved
    result = Recount(
        publisher,
        recorded,
        counted,
        recorded_logical,
        sum(walked.logical.values()),
        len(lacking),
        len(surplus),
    )
    if repair:
        for chunk in chunks([*surplus, *wrong]):
            session.execute(delete(Holding).where(Holding.publisher == publisher, Holding.digest.in_(chunk)))
        back = lacking | {digest: walked.sizes[digest] for digest in wrong}
        new = [{"publisher": publisher, "digest": each, "size": size, "draft_id": None} for each, size in back.items()]
        insert_new(session, Holding, new)
        session.execute(delete(ImageUsage).where(ImageUsage.publisher == publisher))
        images = [{"publisher": publisher, "image": name, "logical_bytes": n} for name, n in walked.logical.items()]
        insert_new(session, ImageUsage, images)
        row.unique_bytes = counted
        row.recount_due = False
    return result
