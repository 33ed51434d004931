"""Whole disks for whoever wants a file: raw and qcow2, by range, resumable."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from oscirc_server.api.answers import IS_HEAD, VALIDATED, matches
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.api.disks import VERSION
from oscirc_server.api.document import produces, refusals
from oscirc_server.api.problems import problem
from oscirc_server.services import downloads
from oscirc_server.services.downloads import MEDIA_TYPES, Form
from oscirc_server.static import Window, window_of

router = APIRouter(tags=["disks"])
Range = Annotated[str | None, Header(max_length=100, description="One range of bytes.")]
IfRange = Annotated[str | None, Header(max_length=200, description="The validator that the range is of.")]
AllowRevoked = Annotated[bool, Query(description="Also what was withdrawn for security reasons.")]


class _Taken(StreamingResponse):
    """A stream that gives its turn back when it ends, however it does."""

    give_back: Callable[[], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.give_back()


def _answer(request: Request, names: tuple[str, str, str], form: Form, *, allow_revoked: bool) -> Response:
    context = context_of(request)
    disk = downloads.open_disk(context.installation, names, form, allow_revoked=allow_revoked)
    headers = {"ETag": disk.etag, "Accept-Ranges": "bytes", "Cache-Control": VALIDATED}
    if matches(request.headers.get("if-none-match", ""), disk.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{names[1]}-{names[2]}.{form}"'
    condition = request.headers.get("if-range")
    is_head = bool(request.scope.get(IS_HEAD))
    asked = request.headers.get("range") if condition in (None, disk.etag) and not is_head else None
    window = window_of(asked, disk.size)
    if window is None:
        return problem(
            "RangeNotSatisfiableError",
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "The file is shorter.",
            headers={"Content-Range": f"bytes */{disk.size}"},
        )
    headers["Content-Length"] = str(window.stop - window.start)
    if is_head:
        return Response(headers=headers, media_type=disk.media_type)
    status = HTTPStatus.OK
    if window != Window(0, disk.size):
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {window.start}-{window.stop - 1}/{disk.size}"
    give_back = context.downloads.take()
    answer = _Taken(disk.pieces(window.start, window.stop), status, headers, disk.media_type)
    answer.give_back = give_back
    return answer


def _documented(form: Form) -> dict[int | str, dict[str, object]]:
    whole = produces(MEDIA_TYPES[form], "The disk.")
    part = produces(MEDIA_TYPES[form], "The range of it.", status=206)
    return {**whole, **part, **refusals(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, HTTPStatus.FORBIDDEN)}


@router.get(VERSION + "/disk.raw", responses=_documented("raw"), response_class=Response)
def download_raw(
    publisher: str,
    image: str,
    version: str,
    request: Request,
    _installation: CurrentInstallation,
    range: Range = None,  # noqa: A002, ARG001  (read by the answer; here for the document)
    if_range: IfRange = None,  # noqa: ARG001
    *,
    allow_revoked: AllowRevoked = False,
) -> Response:
    """The whole disk as a raw file, made while it is sent, every block verified. Ranges resume where they ended.

    403 for a version that was withdrawn for security reasons; 503 while too many disks are being downloaded.
    """
    return _answer(request, (publisher, image, version), "raw", allow_revoked=allow_revoked)


@router.get(VERSION + "/disk.qcow2", responses=_documented("qcow2"), response_class=Response)
def download_qcow2(
    publisher: str,
    image: str,
    version: str,
    request: Request,
    _installation: CurrentInstallation,
    range: Range = None,  # noqa: A002, ARG001
    if_range: IfRange = None,  # noqa: ARG001
    *,
    allow_revoked: AllowRevoked = False,
) -> Response:
    """The whole disk as a qcow2 without zeros, the same bytes each time, made while it is sent. As `disk.raw` else."""
    return _answer(request, (publisher, image, version), "qcow2", allow_revoked=allow_revoked)
