"""The tree over HTTP, for a repository without a web server of its own in front: an ASGI application.

GET and HEAD, ETag and If-None-Match, one range at a time (several in one request are answered with the whole file,
as RFC 9110 allows). A path is judged by `tree_paths.is_tree_path` and by nothing else: what that lets through cannot
leave the tree. Bodies are never encoded, errors are problems and carry `no-store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from oscirc_blockstore.errors import OscircError
from oscirc_server.api.problems import problem, problem_of
from oscirc_server.direct_reads import DirectReads
from oscirc_server.static_files import LocalFile, StoredObject, open_file
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TOP, cache_control, content_type, is_tree_path

PIECE_BYTES = 1 << 20  # a frame is sent in one or two pieces

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True)
class Window:
    """The bytes to send: `start` to `stop` (excluded)."""

    start: int
    stop: int


def window_of(header: str | None, size: int) -> Window | None:
    """What a Range header asks of `size` bytes: all when absent or not understood, None when it cannot be had."""
    whole = Window(0, size)
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return whole
    first, last = match.groups()
    if first:
        start = int(first)
        if last and int(last) < start:
            return whole  # RFC 9110 14.1.1: an invalid range is ignored
        stop = min(int(last) + 1, size) if last else size
        return Window(start, stop) if start < size else None
    if not last:
        return whole
    length = min(int(last), size)
    return Window(size - length, size) if length else None


@contextlib.asynccontextmanager
async def _disconnection(receive: Receive) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the client goes away, so that a long file is not read for nobody."""
    gone = asyncio.Event()

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    task = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class StaticTree:
    """The paths below `metadata/`, `targets/`, `roots/`, `manifests/`, `blocks/` and `accel/`."""

    def __init__(self, storage: Storage, direct: DirectReads | None = None) -> None:
        self._storage = storage
        self._direct = direct

    @staticmethod
    def serves(path: str) -> bool:
        """Whether a URL path (with its leading slash) lies in the tree's part of the URL space."""
        return path[1:].partition("/")[0] in TOP

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"][1:]
        if scope["method"] not in ("GET", "HEAD"):
            refusal = problem("MethodNotAllowedError", 405, "Files are read.", headers={"Allow": "GET, HEAD"})
            await refusal(scope, receive, send)
            return
        try:
            if await self._redirected(scope, send, path):
                return
            file = await open_file(self._storage, path) if is_tree_path(path) else None
        except OscircError as error:
            await problem_of(error)(scope, receive, send)
            return
        if file is None:
            await problem("NotFoundError", 404, "This repository has no such file.")(scope, receive, send)
            return
        try:
            await self._send(scope, receive, send, path, file)
        finally:
            file.close()

    async def _redirected(self, scope: Scope, send: Send, path: str) -> bool:
        """Whether the reader was told to read the file from somewhere else."""
        if self._direct is None or scope["method"] != "GET" or scope["query_string"] or not is_tree_path(path):
            return False
        elsewhere = await asyncio.to_thread(self._direct.elsewhere, path)
        if elsewhere is None:
            return False
        headers = {"location": elsewhere.url, "cache-control": elsewhere.cache_control, "content-length": "0"}
        await _start(send, HTTPStatus.TEMPORARY_REDIRECT, headers)
        await send({"type": "http.response.body", "body": b""})
        return True

    @staticmethod
    async def _send(scope: Scope, receive: Receive, send: Send, path: str, file: LocalFile | StoredObject) -> None:
        request = Headers(scope=scope)
        headers = {"cache-control": cache_control(path), "accept-ranges": "bytes"}
        if file.etag:
            headers["etag"] = file.etag
        if file.modified:
            headers["last-modified"] = file.modified
        if file.etag and file.etag in [tag.strip() for tag in request.get("if-none-match", "").split(",")]:
            await _start(send, 304, headers)
            await send({"type": "http.response.body", "body": b""})
            return
        headers["content-type"] = content_type(path)
        headers["x-content-type-options"] = "nosniff"
        condition = request.get("if-range")
        asked = request.get("range") if condition in (None, file.etag) and scope["method"] == "GET" else None
        window = window_of(asked, file.size)
        if window is None:
            unsatisfiable = {"Content-Range": f"bytes */{file.size}"}
            refusal = problem("RangeNotSatisfiableError", 416, "The file is shorter.", headers=unsatisfiable)
            await refusal(scope, receive, send)
            return
        headers["content-length"] = str(window.stop - window.start)
        is_part = window != Window(0, file.size)
        if is_part:
            headers["content-range"] = f"bytes {window.start}-{window.stop - 1}/{file.size}"
        await _start(send, 206 if is_part else 200, headers)
        if scope["method"] == "HEAD" or window.start == window.stop:
            await send({"type": "http.response.body", "body": b""})
        elif window.stop - window.start <= PIECE_BYTES:
            await _send_window(send, file, window)
        else:
            async with _disconnection(receive) as gone:
                await _send_window(send, file, window, gone)


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_window(
    send: Send, file: LocalFile | StoredObject, window: Window, gone: asyncio.Event | None = None
) -> None:
    at = window.start
    while at < window.stop and not (gone is not None and gone.is_set()):
        piece = await file.read(at, min(PIECE_BYTES, window.stop - at))
        if not piece:
            raise OSError("the file became shorter while it was sent")  # the connection is closed: no half answer
        at += len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": at < window.stop})
