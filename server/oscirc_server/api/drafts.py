"""Drafts: open, negotiate, upload, release."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response
from pydantic import Base64Bytes, BaseModel
from starlette.concurrency import run_in_threadpool

from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES
from oscirc_blockstore.table import BLOCK_SIZES
from oscirc_server.api.bodies import body_chunks, documented, documented_raw, json_body, raw_body
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.disks import HexDigest
from oscirc_server.api.document import refusals
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.api.security import Caller, OwnDraft
from oscirc_server.clock import date_text
from oscirc_server.services import drafts, lengths, releases
from oscirc_server.services.drafts import DraftFacts
from oscirc_server.services.frame_records import FRAME_MEDIA_TYPE, MAX_BODY_BYTES, MEDIA_TYPE, record_of

MAX_ROLE_BODY_BYTES = 32 << 20  # base64 of a role and of the indexes that it changes
MAX_FRAME_BYTES = max_frame_bytes(max(BLOCK_SIZES))

_BYTES = "application/octet-stream"
router = APIRouter(prefix="/drafts", tags=["publishing"])


class NewDraft(BaseModel):
    """What is to be published."""

    publisher: str
    image: str
    version: str
    block_size: int


class DraftDocument(BaseModel):
    """A draft; `released` is the manifest digest that this version has already, if it was released before.

    `state` is its version's: `draft`, `uploading` once something of it is here, `verifying` while its release is being
    judged, then `released`.
    """

    id: str
    publisher: str
    image: str
    version: str
    block_size: int
    state: Literal["draft", "uploading", "verifying", "released"]
    expires: str
    has_manifest: bool
    released: str | None


class DraftList(BaseModel):
    """Some drafts; `next` is the `after` of the following ones, null at the end."""

    drafts: list[DraftDocument]
    next: str | None


class UploadDocument(BaseModel):
    """What became of an upload's body."""

    stored: int
    present: int
    stored_bytes: int


class RoleOffer(BaseModel):
    """A signed role, and the indexes that it names for the first time, by image; base64."""

    role: Base64Bytes
    indexes: dict[str, Base64Bytes] = {}


class ReleaseDocument(BaseModel):
    """What took force."""

    role_version: int
    snapshot_version: int


def _document(draft: DraftFacts) -> DraftDocument:
    return DraftDocument(
        id=draft.id,
        publisher=draft.publisher,
        image=draft.image,
        version=draft.version,
        block_size=draft.block_size,
        state=draft.phase,  # type: ignore[arg-type]  # one of these
        expires=date_text(draft.expires_s),
        has_manifest=draft.has_manifest,
        released=draft.released_manifest,
    )


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented(NewDraft),
    responses={
        **refusals(404),
        200: {"model": DraftDocument, "description": "The draft that is open for these names."},
    },
)
def open_draft(
    principal: Caller,
    body: Annotated[NewDraft, Depends(json_body(NewDraft))],
    installation: CurrentInstallation,
    response: Response,
) -> DraftDocument:
    """Open a draft, or find the one that is open for these names (200)."""
    principal.require_publisher(body.publisher)
    draft, is_new = drafts.open_draft(installation, body.publisher, body.image, body.version, body.block_size)
    if not is_new:
        response.status_code = HTTPStatus.OK
    return _document(draft)


@router.get("")
def list_drafts(
    principal: Caller,
    page: CurrentPage,
    installation: CurrentInstallation,
    request: Request,
    response: Response,
    publisher: Annotated[str, Query(max_length=63)] = "",
    image: Annotated[str, Query(max_length=63)] = "",
) -> DraftList:
    """The drafts that the token may work on, released ones included until they expire."""
    found, place = drafts.page(
        installation, principal.publishers, publisher=publisher, image=image, after=page.after, limit=page.limit
    )
    link_next(request, response, place)
    return DraftList(drafts=[_document(draft) for draft in found], next=place)


@router.get("/{draft_id}")  # noqa: FAST003  (own_draft takes it)
def get_draft(draft: OwnDraft) -> DraftDocument:
    """The draft's state."""
    return _document(draft)


@router.delete("/{draft_id}", status_code=HTTPStatus.NO_CONTENT)  # noqa: FAST003  (own_draft takes it)
def discard_draft(draft: OwnDraft, principal: Caller, installation: CurrentInstallation) -> None:
    """End a draft that was not released."""
    drafts.discard(installation, draft.id, actor=principal.actor)


@router.post("/{draft_id}/missing", response_class=Response, openapi_extra=documented_raw(_BYTES))
def find_missing(
    draft: OwnDraft,
    body: Annotated[bytes, Depends(raw_body(drafts.MAX_DIGESTS * 32))],
    installation: CurrentInstallation,
) -> Response:
    """Which of these digests (32 bytes each) the store lacks; the present ones are leased to the draft."""
    return Response(drafts.missing(installation, draft.id, body), media_type=_BYTES)


@router.post("/{draft_id}/frames", openapi_extra=documented_raw(MEDIA_TYPE))  # noqa: FAST003  (own_draft takes it)
async def upload_frames(draft: OwnDraft, request: Request) -> UploadDocument:
    """Store the frames of a framed body; each is decoded and hashed before it is kept."""
    return await _store(draft, request, body_chunks(request, MAX_BODY_BYTES))


@router.put("/{draft_id}/frames/{digest}", openapi_extra=documented_raw(FRAME_MEDIA_TYPE))
async def upload_frame(
    draft: OwnDraft, digest: HexDigest, body: Annotated[bytes, Depends(raw_body(MAX_FRAME_BYTES))], request: Request
) -> UploadDocument:
    """Store one frame by the digest of what it holds: for who has few, as curl does; many go in one framed body."""
    return await _store(draft, request, _one_piece(record_of(parse_hex(digest), body)))


async def _store(draft: DraftFacts, request: Request, body: AsyncIterator[bytes]) -> UploadDocument:
    drafts.require_open(draft)
    context = context_of(request)
    await run_in_threadpool(drafts.require_room, context.installation, draft)
    facts = await context.uploader.store_body(draft.id, draft.block_size, body)
    return UploadDocument(stored=facts.stored, present=facts.present, stored_bytes=facts.stored_bytes)


async def _one_piece(body: bytes) -> AsyncIterator[bytes]:
    yield body


@router.put("/{draft_id}/manifest", status_code=HTTPStatus.NO_CONTENT, openapi_extra=documented_raw("application/json"))
def put_manifest(
    draft: OwnDraft, body: Annotated[bytes, Depends(raw_body(MAX_MANIFEST_BYTES))], installation: CurrentInstallation
) -> None:
    """Keep the draft's manifest."""
    drafts.put_manifest(installation, draft.id, body)


@router.post("/{draft_id}/release", openapi_extra=documented(RoleOffer))
def release_draft(
    draft: OwnDraft,
    principal: Caller,
    body: Annotated[RoleOffer, Depends(json_body(RoleOffer, MAX_ROLE_BODY_BYTES))],
    installation: CurrentInstallation,
    after: BackgroundTasks,
) -> ReleaseDocument:
    """Make the draft's version visible, at once and for ever; its block lengths are made after the answer."""
    released = releases.release(installation, draft.id, body.role, body.indexes, actor=principal.actor)
    if released.manifest is not None:
        after.add_task(lengths.make, installation, released.manifest)
    return ReleaseDocument(role_version=released.role_version, snapshot_version=released.snapshot_version)
