"""The catalog's rows, derived from accepted roles; whoever changes a role calls this in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.image_index import DEFAULT_CHANNEL, ImageIndex, ImageVersion
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_server.models import ImageRow, ManifestRow


def shown_version(index: ImageIndex) -> ImageVersion | None:
    """The version that stands for the image: `stable`'s, else the newest that was not yanked, else the newest."""
    if DEFAULT_CHANNEL in index.channels:
        return index.channel(DEFAULT_CHANNEL)
    usable = [version for version in index.versions if version.yanked is None]
    if usable:
        return usable[-1]
    return index.versions[-1] if index.versions else None


def _search_text(session: Session, index: ImageIndex) -> str:
    words = [f"{index.publisher}/{index.image}"]
    version = shown_version(index)
    row = None if version is None else session.get(ManifestRow, version.manifest)
    if row is not None:
        system = parse_manifest(row.raw).system
        words += [system.family, system.version, system.architecture, system.firmware]
    return " ".join(words).lower()


def record(session: Session, index: ImageIndex, index_path: str, now_s: int) -> None:
    """An image's index as it now is."""
    session.merge(
        ImageRow(
            publisher=index.publisher,
            image=index.image,
            index_path=index_path,
            listed=True,
            version_count=len(index.versions),
            search_text=_search_text(session, index),
            updated_s=now_s,
        )
    )


def list_only(session: Session, publisher: str, images: Mapping[str, object]) -> None:
    """The publisher's listed images are these; the others stay known, so that they cannot come back changed."""
    for row in session.scalars(select(ImageRow).where(ImageRow.publisher == publisher)):
        row.listed = row.image in images


def unlist_publisher(session: Session, publisher: str) -> None:
    """No client can verify this publisher's role any more: the catalog shows nothing of it."""
    session.execute(update(ImageRow).where(ImageRow.publisher == publisher).values(listed=False))
