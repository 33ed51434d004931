"""The update picker: from one version of an image to another, what it moves, and where on the disk it changes.

A GET form, so that every choice is an address; the same address answers as JSON. What is compared is
`services.comparisons`'; what cannot be compared (blocks of two sizes, a busy server) is said, and the rest stands. A
version that is not here is answered 404 with the form, so that another can be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import BusyError, NotFoundError, UsageError
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.packages import PackageChange
from oscirc_server.api.answers import VALIDATED, matches
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.disks import difference_document
from oscirc_server.models import ManifestRow
from oscirc_server.services import update_choices, versions
from oscirc_server.services.differences import VersionDifference
from oscirc_server.services.disk_maps import KINDS, DiskMap
from oscirc_server.services.image_rows import shown_version
from oscirc_server.services.update_choices import Choice
from oscirc_server.web import disk_drawings, rendering
from oscirc_server.web.drawings import scaled_bars

MOST_OPTIONS: Final = 300
MOST_PACKAGES: Final = 1000  # of a kind, on a page
OPEN_PACKAGES: Final = 20
_MAX_LABEL_CHARS: Final = 200

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both disks, what lies between them or why that is not known, and what all of the new one costs."""

    old: tuple[Digest, Manifest]
    new: tuple[Digest, Manifest]
    found: VersionDifference | None
    why: str
    whole_bytes: int
    packages: tuple[PackageChange, ...] | None


@router.api_route("/images/{publisher}/{image}/updates", methods=["GET", "HEAD"])
def updates_page(
    publisher: str,
    image: str,
    request: Request,
    installation: CurrentInstallation,
    old: Annotated[str, Query(max_length=_MAX_LABEL_CHARS, alias="from")] = "",
    new: Annotated[str, Query(max_length=_MAX_LABEL_CHARS, alias="to")] = "",
) -> Response:
    """What an update from one version to another is, or the same as JSON."""
    as_json = rendering.wants_json(request)
    choice, said = None, ""
    with installation.database.read() as session:
        index = versions.index_of(session, publisher, image)
        values = rendering.common(session, request, "../../../")
    try:
        choice = update_choices.choose(index, shown_version(index), old, new)
    except NotFoundError as error:
        if as_json:
            raise
        said = str(error)
    compared = None if choice is None else _compare(request, choice)
    if as_json:
        return _validated(request, JSONResponse(_document(index, choice, compared)))
    facts = {"index": index, "said": said, "asked": (old, new), "choice": choice, "compared": compared}
    facts |= _options(index, choice) | _drawn(None if compared is None else compared.found, compared)
    facts["packages"] = [] if compared is None or compared.packages is None else _packages(compared.packages)
    facts["open_packages"] = OPEN_PACKAGES
    facts["commands"] = [] if choice is None else update_choices.commands(index, choice, str(values["local_name"]))
    status = HTTPStatus.NOT_FOUND if said else HTTPStatus.OK
    return _validated(request, rendering.page("updates.html", {**values, **facts}, status))


def _compare(request: Request, choice: Choice) -> _Compared:
    context = context_of(request)
    with context.installation.database.read() as session:
        (old, _), (new, whole_bytes) = _disk(session, choice.old), _disk(session, choice.new)
    found, why = None, ""
    try:
        found = context.comparisons.difference(context.installation, old, new)
    except (BusyError, UsageError) as error:
        why = f"{error}{f' ({error.hint})' if error.hint else ''}"
    packages = context.comparisons.packages(context.installation, old[0], new[0])
    return _Compared(old, new, found, why, whole_bytes, packages)


def _disk(session: Session, version: ImageVersion) -> tuple[tuple[Digest, Manifest], int]:
    row = session.get(ManifestRow, version.manifest)
    if row is None:
        raise NotFoundError(f"there is no manifest {version.manifest.hex()} here")
    return (version.manifest, parse_manifest(row.raw)), row.stored_bytes


def _options(index: ImageIndex, choice: Choice | None) -> dict[str, object]:
    """What the form offers; of very many versions the highest, and whatever is chosen."""
    offered = update_choices.in_order(index)
    chosen = [] if choice is None else [choice.old, choice.new]
    kept = [version for at, version in enumerate(offered) if at < MOST_OPTIONS or version in chosen]
    return {
        "options": kept,
        "left_off": len(offered) - len(kept),
        "channels": versions.channels_of(index),
        "deleted": tuple(reversed(index.deleted))[:MOST_OPTIONS],
    }


def _drawn(found: VersionDifference | None, compared: _Compared | None) -> dict[str, object]:
    if found is None or compared is None:
        return {"bars": [], "picture": None, "runs": []}
    sizes = [("without a delta pack", found.bytes), ("the whole disk, with nothing here", compared.whole_bytes)]
    if found.bytes_with_pack is not None:
        sizes.insert(0, ("with the delta pack", found.bytes_with_pack))
    return {
        "bars": scaled_bars(sizes),
        "picture": disk_drawings.picture(found.picture),
        "runs": disk_drawings.run_lines(found.picture),
    }


@dataclass(frozen=True, slots=True)
class _PackageGroup:
    """Packages of one kind of change: how many, and those of them that are shown."""

    words: str
    count: int
    shown: tuple[PackageChange, ...]


def _packages(changes: Sequence[PackageChange]) -> list[_PackageGroup]:
    """Another version, added, removed; what has none is left out."""
    kinds = {
        "in another version": [each for each in changes if each.old is not None and each.new is not None],
        "added": [each for each in changes if each.old is None],
        "removed": [each for each in changes if each.new is None],
    }
    return [_PackageGroup(words, len(of), tuple(of[:MOST_PACKAGES])) for words, of in kinds.items() if of]


def _document(index: ImageIndex, choice: Choice | None, compared: _Compared | None) -> dict[str, object]:
    """The page as JSON; `difference` is the API's, the map has its cells' counts in the order of `kinds`."""
    document: dict[str, object] = {"publisher": index.publisher, "image": index.image, "from": None, "to": None}
    if choice is None or compared is None:
        return document
    found = compared.found
    return document | {
        "from": _version(choice.old),
        "to": _version(choice.new),
        "back": choice.back,
        "whole_bytes": compared.whole_bytes,
        "difference": None
        if found is None
        else difference_document(choice.old.manifest, choice.new.manifest, found).model_dump(),
        "not_compared": compared.why,
        "map": None if found is None else _map(found.picture),
        "packages": None
        if compared.packages is None
        else [{"name": each.name, "old": each.old, "new": each.new} for each in compared.packages],
    }


def _version(version: ImageVersion) -> dict[str, object]:
    yanked = version.yanked
    return {
        "version": version.label,
        "manifest": version.manifest.hex(),
        "released": version.released,
        "changelog": version.changelog,
        "yanked": None if yanked is None else {"why": yanked.why, "date": yanked.date, "security": yanked.security},
    }


def _map(found: DiskMap) -> dict[str, object]:
    return {
        "block_count": found.block_count,
        "looked_at": found.seen,
        "kinds": list(KINDS),
        "cells": [list(cell) for cell in found.cells],
        "runs": [{"start": run.start, "blocks": run.count} for run in found.runs],
        "run_count": found.run_count,
    }


def _validated(request: Request, answer: Response) -> Response:
    """With a validator of its bytes; 304 without them where the reader has these."""
    answer.headers["Cache-Control"] = VALIDATED if answer.status_code == HTTPStatus.OK else "no-store"
    answer.headers["Vary"] = "Accept"
    if answer.status_code != HTTPStatus.OK:
        return answer
    etag = f'"{digest_of(bytes(answer.body)).hex()[:32]}"'
    answer.headers["ETag"] = etag
    if not matches(request.headers.get("if-none-match", ""), etag):
        return answer
    kept = {name: answer.headers[name] for name in ("ETag", "Cache-Control", "Vary")}
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=kept)
