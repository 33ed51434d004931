"""Accelerators of a version: put and removed by its publisher, read as static files; and boots that people share."""

from __future__ import annotations

import hashlib
import tempfile
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import UsageError
from oscirc_server.accelerator_bounds import limit_bytes
from oscirc_server.api.bodies import body_chunks, documented_raw, raw_body
from oscirc_server.api.conditions import CurrentCondition
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.document import refusals
from oscirc_server.api.security import Caller
from oscirc_server.services import accelerators, fleet

_SPOOL_BYTES = 4 << 20
_VERSION = "/images/{publisher}/{image}/versions/{version}"
router = APIRouter(tags=["accelerators"])


class AcceleratorDocument(BaseModel):
    """One file: `accel/<sha256>` below the repository's URL; lengths in bytes."""

    kind: str
    name: str
    sha256: str
    length: int
    index_length: int


class AcceleratorList(BaseModel):
    """What there is for a version's disk."""

    manifest: str
    accelerators: list[AcceleratorDocument]


class RunDocument(BaseModel):
    """How many runs of this name are kept."""

    runs: int


def _document(accelerator: Accelerator) -> AcceleratorDocument:
    return AcceleratorDocument(
        kind=accelerator.kind,
        name=accelerator.name,
        sha256=accelerator.sha256.hex(),
        length=accelerator.length,
        index_length=accelerator.index_length,
    )


@router.get(_VERSION + "/accelerators")
def list_accelerators(publisher: str, image: str, version: str, installation: CurrentInstallation) -> AcceleratorList:
    """The accelerators of a version."""
    with installation.database.read() as session:
        digest, _ = accelerators.manifest_of(session, publisher, image, version)
        listed = accelerators.listing(session, digest)
    return AcceleratorList(manifest=digest.hex(), accelerators=[_document(each) for each in listed.accelerators])


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
    return _document(put)


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
