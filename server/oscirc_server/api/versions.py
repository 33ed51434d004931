"""Versions of an image, their states, and the channels that point at them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from oscirc_blockstore.errors import NotFoundError
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.images import SystemDocument
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import OptionalCaller
from oscirc_server.models import VersionRow
from oscirc_server.services import authority, drafts, versions
from oscirc_server.services.drafts import DraftFacts

PATH = "/images/{publisher}/{image}/versions"
router = APIRouter(tags=["catalog"])


class StateDocument(BaseModel):
    """When and why a version was yanked or deleted; `security`: clients refuse to boot it."""

    date: str
    why: str
    security: bool


class VersionResource(BaseModel):
    """A version; sizes in bytes, null where they are not known (any more).

    `changed` says when and why it was yanked or deleted; `shown`: it stands for its image in the catalog. `kind` and
    `end_of_life` (a day, or null) are what the publisher says of the image and of this version of its system. A draft's
    version (`draft`, `uploading`, `verifying`) is shown to its publisher only, and has no more than its names.
    """

    publisher: str
    image: str
    version: str
    state: Literal["draft", "uploading", "verifying", "released", "yanked", "deleted"]
    changed: StateDocument | None
    manifest: str | None
    released: str | None
    changelog: str
    channels: list[str]
    shown: bool
    reference: str
    block_size: int | None
    disk_size: int | None
    data_bytes: int | None
    download_bytes: int | None
    system: SystemDocument | None
    kind: str
    end_of_life: str | None


class VersionList(BaseModel):
    """Some versions, newest first; `next` is the `after` of the following ones, null at the end."""

    versions: list[VersionResource]
    next: str | None


class ChannelDocument(BaseModel):
    """A channel and the version that it points at."""

    channel: str
    version: str
    manifest: str
    released: str


class ChannelList(BaseModel):
    """Some channels by name; `next` is the `after` of the following ones, null at the end."""

    channels: list[ChannelDocument]
    next: str | None


def system_of(row: VersionRow) -> SystemDocument | None:
    """What is known of the system on a version's disk."""
    if row.minimum_memory_mib is None:
        return None
    return SystemDocument(
        family=row.family,
        version=row.system_version,
        architecture=row.architecture,
        firmware=row.firmware,
        minimum_memory_mib=row.minimum_memory_mib,
        default_login=row.default_login,
    )


def resource(row: VersionRow, channels: list[str]) -> VersionResource:
    """A version's row as a resource."""
    changed = StateDocument(date=row.state_date, why=row.state_why, security=row.security)
    return VersionResource(
        publisher=row.publisher,
        image=row.image,
        version=row.label,
        state=row.state,  # type: ignore[arg-type]  # one of `versions.STATES`
        changed=changed if row.state_date else None,
        manifest=row.manifest.hex(),
        released=row.released or None,
        changelog=row.changelog,
        channels=channels,
        shown=row.shown,
        reference=f"{row.name}@{row.label}",
        block_size=row.block_size,
        disk_size=row.disk_size,
        data_bytes=row.data_bytes,
        download_bytes=row.download_bytes,
        system=system_of(row),
        kind=row.kind,
        end_of_life=row.end_of_life or None,
    )


def _of_draft(draft: DraftFacts) -> VersionResource:
    return VersionResource(
        publisher=draft.publisher,
        image=draft.image,
        version=draft.version,
        state=draft.phase,  # type: ignore[arg-type]  # one of the first three
        changed=None,
        manifest=None,
        released=None,
        changelog="",
        channels=[],
        shown=False,
        reference=f"{draft.publisher}/{draft.image}@{draft.version}",
        block_size=draft.block_size,
        disk_size=None,
        data_bytes=None,
        download_bytes=None,
        system=None,
        kind="",
        end_of_life=None,
    )


@router.get(PATH)
def list_versions(
    publisher: str,
    image: str,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
    state: Annotated[Literal["released", "yanked", "deleted"] | None, Query(description="Only those.")] = None,
) -> VersionList:
    """The versions of an image, newest first, deleted ones included."""
    with installation.database.read() as session:
        rows, place = versions.page(session, publisher, image, state=state or "", after=page.after, limit=page.limit)
        channels = versions.channels_of(versions.index_of(session, publisher, image))
    link_next(request, response, place)
    return VersionList(versions=[resource(row, channels.get(row.label, [])) for row in rows], next=place)


@router.get(PATH + "/{version}")
def get_version(
    publisher: str, image: str, version: str, installation: CurrentInstallation, principal: OptionalCaller
) -> VersionResource:
    """One version. With its publisher's token also one that is not released yet."""
    try:
        with installation.database.read() as session:
            row = versions.find(session, publisher, image, version)
            channels = versions.channels_of(versions.index_of(session, publisher, image))
            return resource(row, channels.get(version, []))
    except NotFoundError:
        if principal is None or not principal.may(authority.READ, publisher):
            raise
        draft = drafts.open_for(installation, publisher, image, version)
        if draft is None:
            raise
        return _of_draft(draft)


@router.get("/images/{publisher}/{image}/channels")
def list_channels(
    publisher: str,
    image: str,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
) -> ChannelList:
    """The channels of an image, by name. They move by the publisher's signature: `PUT publishers/{name}/role`."""
    with installation.database.read() as session:
        index = versions.index_of(session, publisher, image)
    names = sorted(name for name in index.channels if name > page.after)
    found = [(name, index.channel(name)) for name in names[: page.limit]]
    place = found[-1][0] if len(names) > page.limit else None
    link_next(request, response, place)
    documents = [
        ChannelDocument(channel=name, version=at.label, manifest=at.manifest.hex(), released=at.released)
        for name, at in found
    ]
    return ChannelList(channels=documents, next=place)


@router.get("/images/{publisher}/{image}/channels/{channel}")
def get_channel(publisher: str, image: str, channel: str, installation: CurrentInstallation) -> VersionResource:
    """The version that a channel points at."""
    with installation.database.read() as session:
        row = versions.channel(session, publisher, image, channel)
        channels = versions.channels_of(versions.index_of(session, publisher, image))
    return resource(row, channels.get(row.label, []))
