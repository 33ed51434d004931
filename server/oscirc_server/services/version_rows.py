"""Rows of versions, derived from an image's index whenever one takes force: what lists, search and facets read.

A release changes few of them, so those that stay as they are are left alone. A version that was deleted keeps what
was known of it; what its index never said (a store that was taken over) stays empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from oscirc_blockstore.about import About
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_server.models import (
    VERSION_DELETED,
    VERSION_RELEASED,
    VERSION_YANKED,
    ManifestRow,
    VersionRow,
)

_UNKNOWN: dict[str, object] = {
    "family": "",
    "system_version": "",
    "architecture": "",
    "firmware": "",
    "default_login": "",
    "changelog": "",
    "released": "",
}


def record(session: Session, index: ImageIndex, shown: ImageVersion | None) -> None:
    """The rows of an image whose index is in force and listed."""
    known = rows_of(session, index.publisher, index.image)
    wanted = _wanted(index, shown, known)
    for label, values in wanted.items():
        row = known.get(label)
        if row is None:
            facts = _facts(session, Digest(bytes(values["manifest"])))  # type: ignore[call-overload]  # always bytes
            row = VersionRow(**(_UNKNOWN | facts | values))
            session.add(row)
        for name, value in {**values, **_said(row, index.about)}.items():
            if getattr(row, name) != value:
                setattr(row, name, value)
    for label, row in known.items():
        if label not in wanted:  # only where an index was taken back after its key was stolen
            session.delete(row)
    session.flush()


def forget(session: Session, publisher: str, image: str) -> None:
    """No row of this image any more."""
    session.execute(delete(VersionRow).where(VersionRow.publisher == publisher, VersionRow.image == image))


def rows_of(session: Session, publisher: str, image: str) -> dict[str, VersionRow]:
    """The rows of an image by label."""
    found = session.scalars(select(VersionRow).where(VersionRow.publisher == publisher, VersionRow.image == image))
    return {row.label: row for row in found}


def _wanted(
    index: ImageIndex, shown: ImageVersion | None, known: Mapping[str, VersionRow]
) -> dict[str, dict[str, object]]:
    """What each row must say, by label; positions of deleted versions stay, or lie before all others."""
    common: dict[str, object] = {
        "publisher": index.publisher,
        "image": index.image,
        "name": f"{index.publisher}/{index.image}",
    }
    wanted: dict[str, dict[str, object]] = {}
    for place, version in _placed(index, known):
        is_shown = version is shown
        yanked = version.yanked
        wanted[version.label] = common | {
            "label": version.label,
            "position": place,
            "manifest": version.manifest,
            "state": VERSION_RELEASED if yanked is None else VERSION_YANKED,
            "state_date": "" if yanked is None else yanked.date,
            "state_why": "" if yanked is None else yanked.why,
            "security": yanked is not None and yanked.security,
            "released": version.released,
            "changelog": version.changelog,
            "shown": is_shown,
            "searched": is_shown or yanked is None,
        }
    for number, gone in enumerate(index.deleted):
        row = known.get(gone.label)
        wanted[gone.label] = common | {
            "label": gone.label,
            "position": number - len(index.deleted) if row is None else row.position,
            "manifest": gone.manifest,
            "state": VERSION_DELETED,
            "state_date": gone.date,
            "state_why": gone.why,
            "security": gone.security,
            "shown": False,
            "searched": False,
        }
    return wanted


def _placed(index: ImageIndex, known: Mapping[str, VersionRow]) -> Iterator[tuple[int, ImageVersion]]:
    """Versions with their places: one that has a place keeps it, a new one comes after all that were ever here."""
    last = max((row.position for row in known.values()), default=-1)
    for version in index.versions:
        row = known.get(version.label)
        if row is None:
            last += 1
        yield last if row is None else row.position, version


def _facts(session: Session, digest: Digest) -> dict[str, object]:
    row = session.get(ManifestRow, digest)
    if row is None:
        return {}
    manifest = parse_manifest(row.raw)
    system, geometry = manifest.system, manifest.geometry
    return {
        "family": system.family,
        "system_version": system.version,
        "architecture": system.architecture,
        "firmware": system.firmware,
        "minimum_memory_mib": system.minimum_memory_mib,
        "default_login": system.default_login,
        "block_size": geometry.block_size,
        "disk_size": geometry.disk_size,
        "data_bytes": manifest.data_blocks * geometry.block_size,
        "download_bytes": row.stored_bytes,
    }


def _said(row: VersionRow, said: About) -> dict[str, object]:
    """What follows from what is said of the image."""
    return {
        "kind": said.kind,
        "end_of_life": said.ends(row.system_version),
        "search_text": _search_text(row, said),
    }


def _search_text(row: VersionRow, said: About) -> str:
    of_system = (row.family, row.system_version, row.architecture, row.firmware)
    words = (row.name, row.label, *of_system, said.title, said.summary)
    return " ".join(words).lower()
