"""The catalog: what the repository offers, as values for the API and the page. Unsigned: shown, never trusted."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from oscirc_blockstore import image_index
from oscirc_blockstore.about import NOTHING_SAID, About
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.image_index import DEFAULT_CHANNEL, Deleted, ImageIndex, ImageVersion, Yank
from oscirc_blockstore.manifest import SystemFacts
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.names import check_image, check_publisher
from oscirc_server import delegations, repository
from oscirc_server.models import Document, ImageRow, ManifestRow
from oscirc_server.services import pages
from oscirc_server.services.image_rows import shown_version

MAX_PAGE = 200
DEFAULT_PAGE = 50
MAX_QUERY_CHARS = 200
LISTED_VERSIONS = 20  # of each image in a list; all of them are shown for one image


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One version: sizes in bytes, `download_bytes` being all its frames with no block at hand."""

    label: str
    manifest: str
    released: str
    changelog: str
    yanked: Yank | None
    disk_size: int
    data_bytes: int
    download_bytes: int
    system: SystemFacts


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image; `versions` newest first, `shown` the label that stands for it, `reference` what to boot.

    `deleted` is what is left of versions that were deleted, the last deleted first.
    """

    publisher: str
    image: str
    channels: dict[str, str]
    version_count: int
    versions: tuple[VersionFacts, ...]
    shown: str | None
    reference: str
    deleted: tuple[Deleted, ...] = ()
    about: About = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class Page:
    """Some images, and what to ask for `after` to get the next ones (None at the end)."""

    images: tuple[ImageFacts, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class PublisherFacts:
    """A publisher as the targets role names it, and the state of its role."""

    name: str
    fingerprints: tuple[str, ...]
    threshold: int
    role_version: int
    expires_s: int | None
    images: tuple[str, ...]


def _version_facts(session: Session, version: ImageVersion) -> VersionFacts | None:
    row = session.get(ManifestRow, version.manifest)
    if row is None:
        return None
    manifest = parse_manifest(row.raw)
    geometry = manifest.geometry
    return VersionFacts(
        label=version.label,
        manifest=version.manifest.hex(),
        released=version.released,
        changelog=version.changelog,
        yanked=version.yanked,
        disk_size=geometry.disk_size,
        data_bytes=manifest.data_blocks * geometry.block_size,
        download_bytes=row.stored_bytes,
        system=manifest.system,
    )


def _image_facts(session: Session, row: ImageRow, limit: int) -> ImageFacts:
    index = image_index.parse(session.get_one(Document, row.index_path).raw, row.publisher, row.image)
    shown = shown_version(index)
    newest = list(reversed(index.versions))
    wanted = newest[:limit]
    if shown is not None and shown not in wanted:
        wanted.append(shown)
    facts = tuple(found for version in wanted if (found := _version_facts(session, version)) is not None)
    return ImageFacts(
        publisher=row.publisher,
        image=row.image,
        channels=dict(index.channels),
        version_count=row.version_count,
        versions=facts,
        shown=None if shown is None else shown.label,
        reference=_reference(index, shown),
        deleted=tuple(reversed(index.deleted))[:limit],
        about=index.about,
    )


def _reference(index: ImageIndex, shown: ImageVersion | None) -> str:
    name = f"{index.publisher}/{index.image}"
    if shown is None or DEFAULT_CHANNEL in index.channels:
        return name
    return f"{name}@{shown.label}"


def images(session: Session, query: str = "", *, limit: int = DEFAULT_PAGE, after: str = "") -> Page:
    """The listed images whose name or system holds every word of `query`, by name."""
    if not 1 <= limit <= MAX_PAGE or len(query) > MAX_QUERY_CHARS:
        raise UsageError(f"ask for 1 to {MAX_PAGE} images with at most {MAX_QUERY_CHARS} characters")
    statement = select(ImageRow).where(ImageRow.listed, ImageRow.version_count > 0)
    for word in query.lower().split():
        statement = statement.where(ImageRow.search_text.contains(word, autoescape=True))
    if after:
        publisher, slash, image = after.partition("/")
        if not slash:
            raise UsageError(f"not a place in the list: {after[:80]!r}")
        statement = statement.where(tuple_(ImageRow.publisher, ImageRow.image) > tuple_(publisher, image))
    rows = list(session.scalars(statement.order_by(ImageRow.publisher, ImageRow.image).limit(limit + 1)))
    found = tuple(_image_facts(session, row, LISTED_VERSIONS) for row in rows[:limit])
    more = len(rows) > limit
    return Page(found, f"{rows[limit - 1].publisher}/{rows[limit - 1].image}" if more else None)


def image(session: Session, publisher: str, name: str) -> ImageFacts:
    """One listed image with all its versions, or `NotFoundError`."""
    row = session.get(ImageRow, (check_publisher(publisher), check_image(name)))
    if row is None or not row.listed:
        raise NotFoundError(f"this repository has no image {publisher}/{name}")
    return _image_facts(session, row, image_index.MAX_VERSIONS)


def image_count(session: Session) -> int:
    """How many images are listed."""
    return (
        session.scalar(select(func.count()).select_from(ImageRow).where(ImageRow.listed, ImageRow.version_count > 0))
        or 0
    )


def publisher(session: Session, name: str) -> PublisherFacts:
    """One publisher, or `NotFoundError`."""
    delegated = delegations.delegation(repository.current_targets(session).signed, name)
    return _publisher_facts(session, delegated)


def _publisher_facts(session: Session, delegated: delegations.Delegation) -> PublisherFacts:
    name = delegated.publisher
    role = repository.current(session, name)
    listed = select(ImageRow.image).where(ImageRow.publisher == name, ImageRow.listed).order_by(ImageRow.image)
    return PublisherFacts(
        name=name,
        fingerprints=delegated.fingerprints,
        threshold=delegated.threshold,
        role_version=0 if role is None else role.version,
        expires_s=None if role is None else role.expires_s,
        images=tuple(session.scalars(listed)),
    )


def publisher_page(session: Session, *, after: str, limit: int) -> tuple[list[PublisherFacts], str | None]:
    """Publishers by name, after one; and the next place, None at the end."""
    targets = repository.current_targets(session).signed
    names, place = pages.of_names(delegations.publishers(targets), after, limit)
    return [_publisher_facts(session, delegations.delegation(targets, name)) for name in names], place


def publishers(session: Session) -> list[PublisherFacts]:
    """Every publisher, by name."""
    targets = repository.current_targets(session).signed
    names = delegations.publishers(targets)
    return [_publisher_facts(session, delegations.delegation(targets, name)) for name in names]
