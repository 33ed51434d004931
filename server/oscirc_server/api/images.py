"""The catalog as JSON: unsigned, for showing. What a client runs it resolves through signed metadata."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from oscirc_blockstore.about import About
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.services import catalog
from oscirc_server.services.catalog import ImageFacts, VersionFacts

router = APIRouter(prefix="/images", tags=["catalog"])


class YankDocument(BaseModel):
    """Why a version should not be used any more."""

    why: str
    date: str
    security: bool


class DeletedDocument(BaseModel):
    """What is left of a version that its publisher deleted: its label is never used again."""

    version: str
    manifest: str
    date: str
    why: str


class SystemDocument(BaseModel):
    """The system on the disk."""

    family: str
    version: str
    architecture: str
    firmware: str
    minimum_memory_mib: int
    default_login: str


class VersionDocument(BaseModel):
    """One version; sizes in bytes."""

    version: str
    manifest: str
    released: str
    changelog: str
    yanked: YankDocument | None
    disk_size: int
    data_bytes: int
    download_bytes: int
    system: SystemDocument


class AboutDocument(BaseModel):
    """What the publisher says of it, as signed. `readme` is Markdown, and null in lists, since it may be long.

    `end_of_life` has a day for each version of the system; that of "" holds for all others.
    """

    title: str
    summary: str
    readme: str | None
    licence: str
    homepage: str
    kind: str
    end_of_life: dict[str, str]


class ImageDocument(BaseModel):
    """One image; `versions` newest first, `boot` the command that runs it, `deleted` what was there and is gone."""

    publisher: str
    image: str
    channels: dict[str, str]
    shown: str | None
    reference: str
    boot: str
    version_count: int
    versions: list[VersionDocument]
    deleted: list[DeletedDocument]
    about: AboutDocument


class ImageList(BaseModel):
    """Some images; `next` is the `after` of the following ones, null at the end."""

    images: list[ImageDocument]
    next: str | None


def _version(facts: VersionFacts) -> VersionDocument:
    yanked = facts.yanked
    system = facts.system
    return VersionDocument(
        version=facts.label,
        manifest=facts.manifest,
        released=facts.released,
        changelog=facts.changelog,
        yanked=None if yanked is None else YankDocument(why=yanked.why, date=yanked.date, security=yanked.security),
        disk_size=facts.disk_size,
        data_bytes=facts.data_bytes,
        download_bytes=facts.download_bytes,
        system=SystemDocument(
            family=system.family,
            version=system.version,
            architecture=system.architecture,
            firmware=system.firmware,
            minimum_memory_mib=system.minimum_memory_mib,
            default_login=system.default_login,
        ),
    )


def _about(said: About, *, with_readme: bool) -> AboutDocument:
    return AboutDocument(
        title=said.title,
        summary=said.summary,
        readme=said.readme if with_readme else None,
        licence=said.licence,
        homepage=said.homepage,
        kind=said.kind,
        end_of_life=dict(said.end_of_life),
    )


def image_document(facts: ImageFacts, *, with_readme: bool = True) -> ImageDocument:
    """One image, as it is answered; lists leave the README out, since it may be long."""
    return ImageDocument(
        publisher=facts.publisher,
        image=facts.image,
        channels=facts.channels,
        shown=facts.shown,
        reference=facts.reference,
        boot=f"oscirc boot {facts.reference}",
        version_count=facts.version_count,
        versions=[_version(version) for version in facts.versions],
        deleted=[
            DeletedDocument(version=gone.label, manifest=gone.manifest.hex(), date=gone.date, why=gone.why)
            for gone in facts.deleted
        ],
        about=_about(facts.about, with_readme=with_readme),
    )


@router.get("")
def list_images(
    installation: CurrentInstallation,
    response: Response,
    q: Annotated[str, Query(max_length=catalog.MAX_QUERY_CHARS)] = "",
    limit: Annotated[int, Query(ge=1, le=catalog.MAX_PAGE)] = catalog.DEFAULT_PAGE,
    after: Annotated[str, Query(max_length=130)] = "",
) -> ImageList:
    """Images whose name or system holds every word of `q`; the next page stands in `next` and in `Link`."""
    with installation.database.read() as session:
        page = catalog.images(session, q, limit=limit, after=after)
    if page.after is not None:
        query = urlencode({"q": q, "limit": limit, "after": page.after})
        response.headers["Link"] = f'<images?{query}>; rel="next"'
    return ImageList(images=[image_document(facts, with_readme=False) for facts in page.images], next=page.after)


@router.get("/{publisher}/{image}")
def get_image(publisher: str, image: str, installation: CurrentInstallation) -> ImageDocument:
    """One image with all its versions."""
    with installation.database.read() as session:
        return image_document(catalog.image(session, publisher, image))
