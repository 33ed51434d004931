"""Versions as resources: their states, channels, manifests, tables and nodes. Read from rows; unsigned.

A version's life: *draft* (named), *uploading* (something of it is here), *verifying* (its release is being judged),
*released*, *yanked* (withdrawn, still here), *deleted* (its label is never used again, its disk goes). The first three
are a draft's, and shown to its publisher only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import IntegrityError, LocalError, NotFoundError, UsageError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.image_index import ImageIndex
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_channel, check_image, check_publisher, check_version
from oscirc_blockstore.table import NODE_SIZE, LoadNode, iterate_blocks
from oscirc_server.installation import Installation
from oscirc_server.models import VERSION_DELETED, ImageRow, ManifestRow, VersionRow
from oscirc_server.services import accelerators, blocks

STATES = ("released", "yanked", "deleted")


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A block of a disk: its position, its digest, and the length of its frame where that is known."""

    position: int
    digest: Digest
    stored_length: int | None


def image_row(session: Session, publisher: str, image: str) -> ImageRow:
    """The row of a listed image, or `NotFoundError`."""
    row = session.get(ImageRow, (check_publisher(publisher), check_image(image)))
    if row is None or not row.listed:
        raise NotFoundError(f"this repository has no image {publisher}/{image}")
    return row


def find(session: Session, publisher: str, image: str, label: str) -> VersionRow:
    """One version's row, whatever its state, or `NotFoundError`."""
    image_row(session, publisher, image)
    row = session.get(VersionRow, (publisher, image, check_version(label)))
    if row is None:
        raise NotFoundError(f"{publisher}/{image} has no version {label!r}")
    return row


def page(
    session: Session, publisher: str, image: str, *, state: str = "", after: str = "", limit: int
) -> tuple[list[VersionRow], str | None]:
    """Versions of a listed image, newest first, after the one with a label; and the next place, None at the end."""
    image_row(session, publisher, image)
    of_image = (VersionRow.publisher == publisher, VersionRow.image == image)
    statement = select(VersionRow).where(*of_image)
    if state:
        statement = statement.where(VersionRow.state == state)
    if after:
        last = session.get(VersionRow, (publisher, image, after))
        if last is None:
            raise UsageError(f"not a place in the list: {after[:80]!r}", hint="take `next` of the page before")
        same = (VersionRow.position == last.position) & (VersionRow.label > last.label)
        statement = statement.where(or_(VersionRow.position < last.position, same))
    rows = list(session.scalars(statement.order_by(VersionRow.position.desc(), VersionRow.label).limit(limit + 1)))
    return rows[:limit], rows[limit - 1].label if len(rows) > limit else None


def newest_releases(session: Session, limit: int) -> list[VersionRow]:
    """The versions released last among those that are searched, the newest first."""
    statement = select(VersionRow).where(VersionRow.searched.is_(True))
    return list(session.scalars(statement.order_by(VersionRow.released.desc(), VersionRow.name).limit(limit)))


def index_of(session: Session, publisher: str, image: str) -> ImageIndex:
    """The signed index in force of a listed image, or `NotFoundError`."""
    return accelerators.index_of(session, publisher, image)


def channels_of(index: ImageIndex) -> Mapping[str, list[str]]:
    """The channels that point at each version."""
    found: dict[str, list[str]] = {}
    for channel, label in sorted(index.channels.items()):
        found.setdefault(label, []).append(channel)
    return found


def channel(session: Session, publisher: str, image: str, name: str) -> VersionRow:
    """The version that a channel points at, or `NotFoundError`."""
    version = index_of(session, publisher, image).channel(check_channel(name))
    return find(session, publisher, image, version.label)


def manifest_of(session: Session, publisher: str, image: str, label: str) -> tuple[Digest, Manifest]:
    """The disk of a version that was not deleted, or `NotFoundError`."""
    row = find(session, publisher, image, label)
    if row.state == VERSION_DELETED:
        raise NotFoundError(f"{publisher}/{image}@{label} was deleted by its publisher")
    digest = Digest(row.manifest)
    return digest, parse_manifest(raw_manifest(session, digest))


def raw_manifest(session: Session, digest: Digest) -> bytes:
    """A released manifest as it was signed for, or `NotFoundError`."""
    row = session.get(ManifestRow, digest)
    if row is None:
        raise NotFoundError(f"there is no manifest {digest.hex()} here")
    return row.raw


def node_loader(installation: Installation) -> LoadNode:
    """Loads nodes of released tables; `LocalError` for what should be in the store and is not, or is damaged."""

    def load(digest: Digest) -> bytes:
        frame = installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
        try:
            return decode_verified(frame or b"", NODE_SIZE, digest)
        except IntegrityError as error:
            raise LocalError(f"the node {digest.hex()} cannot be read from the store: {error}") from None

    return load


def node(installation: Installation, digest: Digest) -> bytes:
    """A node of a mapping table, or `NotFoundError`."""
    with installation.database.read() as session:
        found = blocks.stored(session, [digest]).get(digest)
    if found is None or found.raw_size != NODE_SIZE:
        raise NotFoundError(f"there is no node {digest.hex()} here")
    return node_loader(installation)(digest)


def table_page(
    installation: Installation, manifest: Manifest, *, after: str, limit: int
) -> tuple[list[TableEntry], str | None]:
    """Blocks of a disk that hold data, in its order, after a position; and the next place, None at the end."""
    start = 0
    if after:
        if not after.isascii() or not after.isdigit() or int(after) >= manifest.geometry.block_count:
            raise UsageError(f"not a place in the table: {after[:80]!r}", hint="take `next` of the page before")
        start = int(after) + 1
    found: list[tuple[int, Digest]] = []
    for entry in iterate_blocks(manifest.geometry, manifest.root, node_loader(installation), start):
        found.append(entry)
        if len(found) > limit:
            break
    with installation.database.read() as session:
        known = blocks.stored(session, list({digest for _, digest in found}))
    entries = [
        TableEntry(at, digest, known[digest].stored_length if digest in known else None) for at, digest in found[:limit]
    ]
    return entries, str(entries[-1].position) if len(found) > limit else None
