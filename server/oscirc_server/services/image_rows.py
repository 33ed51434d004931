"""The catalog's rows, derived from accepted roles; whoever changes a role calls this in the same transaction.

Every change of an image's rows is noted (`catalog_changes`): that is how the processes that keep the list in memory
learn of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index
from oscirc_blockstore.image_index import DEFAULT_CHANNEL, ImageIndex, ImageVersion
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_server.models import Document, ImageRow, ManifestRow, VersionRow
from oscirc_server.services import catalog_changes, events, version_rows


def shown_version(index: ImageIndex) -> ImageVersion | None:
    """The version that stands for the image: `stable`'s, else the newest that was not yanked, else the newest."""
    if DEFAULT_CHANNEL in index.channels:
        return index.channel(DEFAULT_CHANNEL)
    usable = [version for version in index.versions if version.yanked is None]
    if usable:
        return usable[-1]
    return index.versions[-1] if index.versions else None


def _search_text(session: Session, index: ImageIndex) -> str:
    words = [f"{index.publisher}/{index.image}", index.about.title, index.about.summary]
    version = shown_version(index)
    row = None if version is None else session.get(ManifestRow, version.manifest)
    if row is not None:
        system = parse_manifest(row.raw).system
        words += [system.family, system.version, system.architecture, system.firmware]
    return " ".join(words).lower()


def record(session: Session, index: ImageIndex, index_path: str, now_s: int) -> None:
    """An image's index as it now is, and the events of what it changes."""
    row = session.get(ImageRow, (index.publisher, index.image))
    before = None if row is None else session.get(Document, row.index_path)
    old = None if before is None else image_index.parse(before.raw, index.publisher, index.image)
    if row is None or not row.listed:
        events.record(session, now_s, "image.listed", index.publisher, index.image)
    events.record_changes(session, now_s, old, index)
    session.merge(
        ImageRow(
            publisher=index.publisher,
            image=index.image,
            index_path=index_path,
            listed=True,
            version_count=len(index.versions),
            title=index.about.title,
            summary=index.about.summary,
            search_text=_search_text(session, index),
            updated_s=now_s,
        )
    )
    version_rows.record(session, index, shown_version(index))
    catalog_changes.note(session, index.publisher, index.image)


def list_only(session: Session, publisher: str, images: Mapping[str, object], now_s: int) -> None:
    """The publisher's listed images are these; the others stay known, so that they cannot come back changed."""
    listed = select(ImageRow).where(ImageRow.publisher == publisher, ImageRow.listed)
    for row in list(session.scalars(listed)):
        if row.image not in images:
            _unlist(session, row, now_s)


def unlist_publisher(session: Session, publisher: str, now_s: int) -> None:
    """No client can verify this publisher's role any more: the catalog shows nothing of it."""
    list_only(session, publisher, {}, now_s)


def _unlist(session: Session, row: ImageRow, now_s: int) -> None:
    row.listed = False
    of_image = (VersionRow.publisher == row.publisher, VersionRow.image == row.image)
    session.execute(update(VersionRow).where(*of_image).values(searched=False))
    catalog_changes.note(session, row.publisher, row.image)
    events.record(session, now_s, "image.unlisted", row.publisher, row.image)


def forget(session: Session, row: ImageRow, now_s: int) -> None:
    """An image that was never its publisher's: as if it had not been there."""
    if row.listed:
        _unlist(session, row, now_s)
    version_rows.forget(session, row.publisher, row.image)
    catalog_changes.note(session, row.publisher, row.image)
    session.delete(row)


def make_missing(session: Session) -> int:
    """Rows of versions for listed images that have none: what an older version of this program did not write."""
    without = ~exists().where(VersionRow.publisher == ImageRow.publisher, VersionRow.image == ImageRow.image)
    rows = list(session.scalars(select(ImageRow).where(ImageRow.listed, without)))
    for row in rows:
        index = image_index.parse(session.get_one(Document, row.index_path).raw, row.publisher, row.image)
        version_rows.record(session, index, shown_version(index))
        catalog_changes.note(session, row.publisher, row.image)
    return len(rows)
