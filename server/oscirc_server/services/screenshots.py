"""Screenshots of released versions: judged when they come, listed by the API, served as pictures by their digest.

A screenshot is an accelerator as the others (`services.accelerators`) whose words and size stand in its row, so that a
page need not open its file. Its file is hashed again each time before anything of it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from oscirc_blockstore import screenshot
from oscirc_blockstore.accelerators import SCREENSHOT, Accelerator
from oscirc_blockstore.digests import Digest, parse_hex, verify
from oscirc_blockstore.errors import DocumentRefusedError, NotFoundError
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow

MOST_SHOWN = 6  # on a page
_ADDRESS = re.compile(r"([0-9a-f]{64})\.png")


@dataclass(frozen=True, slots=True)
class Picture:
    """What a page needs to show one: `path` below the repository's URL, words, pixels; `name` is the screenshot's."""

    name: str
    path: str
    alt: str
    width: int
    height: int


def judged(digest: Digest, name: str, sha256: Digest, raw: bytes) -> Accelerator:
    """A whole file as the screenshot of that name; `DocumentRefusedError` for what is none of this disk."""
    if screenshot.parse(raw).manifest != digest:
        raise DocumentRefusedError("the screenshot was taken of another disk")
    return Accelerator(SCREENSHOT, name, sha256, len(raw))


def describe(row: AcceleratorRow, file: IO[bytes]) -> None:
    """Note the words and the size of a judged file in its row."""
    file.seek(0)
    found = screenshot.split(file.read())
    row.alt, row.width, row.height = found.alt, found.size.width, found.size.height


def picture_of(row: AcceleratorRow) -> Picture | None:
    """How to show the row's file; None of another kind."""
    if row.kind != SCREENSHOT or row.alt is None or row.width is None or row.height is None:
        return None
    return Picture(row.name, f"screenshots/{row.sha256.hex()}.png", row.alt, row.width, row.height)


def of_manifests(session: Session, manifests: Iterable[Digest]) -> dict[Digest, list[Picture]]:
    """The pictures of each of these versions, by name, at most `MOST_SHOWN`."""
    wanted = list(manifests)
    rows = session.scalars(
        select(AcceleratorRow)
        .where(AcceleratorRow.manifest.in_(wanted), AcceleratorRow.kind == SCREENSHOT)
        .order_by(AcceleratorRow.name)
    )
    found: dict[Digest, list[Picture]] = {manifest: [] for manifest in wanted}
    for row in rows:
        picture, there = picture_of(row), found[Digest(row.manifest)]
        if picture is not None and len(there) < MOST_SHOWN:
            there.append(picture)
    return found


def first_of(session: Session, manifests: Iterable[Digest]) -> dict[Digest, Picture]:
    """The first picture by name of each of these versions that has one."""
    first = (
        select(AcceleratorRow.manifest, func.min(AcceleratorRow.name).label("name"))
        .where(AcceleratorRow.manifest.in_(list(manifests)), AcceleratorRow.kind == SCREENSHOT)
        .group_by(AcceleratorRow.manifest)
        .subquery()
    )
    rows = session.scalars(
        select(AcceleratorRow)
        .join(first, and_(AcceleratorRow.manifest == first.c.manifest, AcceleratorRow.name == first.c.name))
        .where(AcceleratorRow.kind == SCREENSHOT)
    )
    return {Digest(row.manifest): picture for row in rows if (picture := picture_of(row)) is not None}


def by_name(session: Session, manifest: Digest) -> dict[str, Picture]:
    """All pictures of a version."""
    mine = select(AcceleratorRow).where(AcceleratorRow.manifest == manifest, AcceleratorRow.kind == SCREENSHOT)
    pictures = [picture_of(row) for row in session.scalars(mine)]
    return {picture.name: picture for picture in pictures if picture is not None}


def png(installation: Installation, address: str) -> bytes:
    """The PNG file of a listed screenshot by the last part of its path; `NotFoundError` where none is listed."""
    match = _ADDRESS.fullmatch(address)
    sha256 = None if match is None else parse_hex(match[1])
    with installation.database.read() as session:
        listed = select(AcceleratorRow.length).where(AcceleratorRow.sha256 == sha256, AcceleratorRow.kind == SCREENSHOT)
        length = None if sha256 is None else session.scalar(listed.limit(1))
    raw = None if length is None else installation.storage.get(f"accel/{address[:64]}", length)
    if sha256 is None or raw is None:
        raise NotFoundError("this repository has no such picture")
    verify(raw, sha256)
    return screenshot.split(raw).png
