"""Accelerators of a version: put and removed by its publisher, read as static files; and boots that people share."""

from __future__ import annotations

import hashlib
import tempfile
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from oscirc_blockstore.accelerators import SCREENSHOT, Accelerator
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import UsageError
from oscirc_server.accelerator_bounds import limit_bytes
from oscirc_server.api.bodies import body_chunks, documented_raw, raw_body
from oscirc_server.api.conditions import CurrentCondition
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.document import refusals
from oscirc_server.api.security import Caller
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators, fleet, screenshots
from oscirc_server.services.screenshots import Picture

_SPOOL_BYTES = 4 << 20
_VERSION = "/images/{publisher}/{image}/versions/{version}"
router = APIRouter(tags=["accelerators"])


class PictureDocument(BaseModel):
    """A screenshot as a PNG file: where it is, below the repository's URL; its size in pixels, and what it shows."""

    path: str
    width: int
    height: int
    alt: str


class AcceleratorDocument(BaseModel):
    """One file: `accel/<sha256>` below the repository's URL; lengths in bytes. A `screenshot` has its `picture`."""

    kind: str
    name: str
    sha256: str
    length: int
    index_length: int
    picture: PictureDocument | None = None


class AcceleratorList(BaseModel):
    """What there is for a version's disk."""

    manifest: str
    accelerators: list[AcceleratorDocument]


class RunDocument(BaseModel):
    """How many runs of this name are kept."""

    runs: int


def _document(accelerator: Accelerator, picture: Picture | None = None) -> AcceleratorDocument:
    shown = None
    if picture is not None:
        shown = PictureDocument(path=picture.path, width=picture.width, height=picture.height, alt=picture.alt)
    return AcceleratorDocument(
        kind=accelerator.kind,
        name=accelerator.name,
        sha256=accelerator.sha256.hex(),
        length=accelerator.length,
        index_length=accelerator.index_length,
        picture=shown,
    )


@router.get(_VERSION + "/accelerators")
def list_accelerators(publisher: str, image: str, version: str, installation: CurrentInstallation) -> AcceleratorList:
    """The accelerators of a version."""
    with installation.database.read() as session:
        digest, _ = accelerators.manifest_of(session, publisher, image, version)
        listed = accelerators.listing(session, digest)
        pictures = screenshots.by_name(session, digest)
    documents = [
        _document(each, pictures.get(each.name) if each.kind == SCREENSHOT else None) for each in listed.accelerators
    ]
    return AcceleratorList(manifest=digest.hex(), accelerators=documents)


@router.put(
    _VERSION + "/accelerators/{kind}/{name}",
    openapi_extra=documented_raw("application/octet-stream"),
    responses=refusals(409, 412),
)
async def put_accelerator(
    publisher: str,
    image: str,
    version: str,
    kind: str,
    name: str,
    sha256: Annotated[str, Query(min_length=64, max_length=64)],
    principal: Caller,
    condition: CurrentCondition,
    installation: CurrentInstallation,
    request: Request,
) -> AcceleratorDocument:
    """Keep a file, whose SHA-256 is stated, as the accelerator of that kind and name.

    `If-Match` takes the listed one's SHA-256 in quotes; with `If-None-Match: *` nothing is replaced.
    """
    principal.require_publisher(publisher)
    expected = parse_hex(sha256)
    names = (publisher, image, version)

    def limit() -> int:
        with installation.database.read() as session:
            return limit_bytes(accelerators.manifest_of(session, *names)[1], kind)

    hashed = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as file:
        async for piece in body_chunks(request, await run_in_threadpool(limit)):
            hashed.update(piece)
            await run_in_threadpool(file.write, piece)
        if Digest(hashed.digest()) != expected:
            raise UsageError("the body does not have the SHA-256 that was stated", hint="send it again")
        put = await run_in_threadpool(
            lambda: accelerators.put(
                installation, names, kind, name, expected, file, actor=principal.actor, condition=condition
            )
        )
    return await run_in_threadpool(lambda: _put_document(installation, names, put))


def _put_document(installation: Installation, names: tuple[str, str, str], put: Accelerator) -> AcceleratorDocument:
    if put.kind != SCREENSHOT:
        return _document(put)
    with installation.database.read() as session:
        digest, _ = accelerators.manifest_of(session, *names)
        return _document(put, screenshots.by_name(session, digest).get(put.name))


@router.delete(_VERSION + "/accelerators/{kind}/{name}", status_code=HTTPStatus.NO_CONTENT, responses=refusals(412))
def remove_accelerator(
    publisher: str,
    image: str,
    version: str,
    kind: str,
    name: str,
    principal: Caller,
    condition: CurrentCondition,
    installation: CurrentInstallation,
) -> None:
    """List it no more."""
    principal.require_publisher(publisher)
    names = (publisher, image, version)
    accelerators.remove(installation, names, kind, name, actor=principal.actor, condition=condition)


def sender(request: Request) -> bytes:
    """The network that a run comes from, if it may send one now; asked before the body is read."""
    context = context_of(request)
    network = fleet.network_of(context.installation, request.client.host if request.client else "")
    fleet.admit(context.installation, context.sharing, network)
    return network


@router.post(
    _VERSION + "/profiles/{name}/runs",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=documented_raw("application/json"),
    responses=refusals(429),
)
def add_run(
    publisher: str,
    image: str,
    version: str,
    name: str,
    network: Annotated[bytes, Depends(sender)],
    body: Annotated[bytes, Depends(raw_body(fleet.MAX_RUN_BYTES))],
    installation: CurrentInstallation,
) -> RunDocument:
    """Take the first-touch order of one boot (a profile of one run) for the fleet's profile. Needs no token.

    A network counts once: what it sends replaces what it sent before.
    """
    return RunDocument(runs=fleet.add_run(installation, (publisher, image, version), name, body, network))
