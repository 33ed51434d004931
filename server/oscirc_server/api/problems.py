"""Errors as RFC 9457 problems, from the services and from the framework alike: one table, one form.

`type` is the error's class name, which clients act on; `detail` is for people, `hint` says what they can do. What
went wrong on the server's own side (5xx) is told in general terms and logged in its own words.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from oscirc_blockstore.errors import (
    BusyError,
    IntegrityError,
    LocalError,
    NotFoundError,
    OscircError,
    QuotaExceededError,
    StoreFullError,
    TransportError,
    TrustError,
    UsageError,
)
from oscirc_server import request_ids
from oscirc_server.errors import (
    BlocksBeingDeletedError,
    BodyTooLargeError,
    ConflictError,
    KeyReusedError,
    NotAcceptableError,
    OnlineKeyMissingError,
    PreconditionFailedError,
    RequestRefusedError,
    RoleConflictError,
    ScopeError,
    StalledError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)

# The first row that fits decides: the server's own leaves, then the branches of the tree.
STATUS: tuple[tuple[type[OscircError], HTTPStatus], ...] = (
    (BodyTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (QuotaExceededError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedMediaTypeError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (NotAcceptableError, HTTPStatus.NOT_ACCEPTABLE),
    (PreconditionFailedError, HTTPStatus.PRECONDITION_FAILED),
    (KeyReusedError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RequestRefusedError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ConflictError, HTTPStatus.CONFLICT),
    (RoleConflictError, HTTPStatus.CONFLICT),
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
    (ScopeError, HTTPStatus.FORBIDDEN),
    (StalledError, HTTPStatus.REQUEST_TIMEOUT),
    (TooManyRequestsError, HTTPStatus.TOO_MANY_REQUESTS),
    (StoreFullError, HTTPStatus.INSUFFICIENT_STORAGE),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE),
    (OnlineKeyMissingError, HTTPStatus.SERVICE_UNAVAILABLE),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (TrustError, HTTPStatus.FORBIDDEN),
    (TransportError, HTTPStatus.SERVICE_UNAVAILABLE),
    (LocalError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (IntegrityError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (OscircError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
MEDIA_TYPE = "application/problem+json"
NO_STORE = "no-store"

_log = logging.getLogger(__name__)


def status_of(error: OscircError) -> HTTPStatus:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def problem(
    kind: str,
    status: int,
    detail: str,
    *,
    facts: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem; `facts` are further members."""
    title = HTTPStatus(status).phrase
    body = {"type": kind, "title": title, "status": int(status), "detail": detail, **(facts or {})}
    if request_id := request_ids.current():
        body["request_id"] = request_id
    return JSONResponse(body, status, {"Cache-Control": NO_STORE, **(headers or {})}, MEDIA_TYPE)


def problem_of(error: OscircError) -> JSONResponse:
    """The problem that an error of the tree becomes."""
    status = status_of(error)
    kind = type(error)
    facts: dict[str, object] = dict(getattr(error, "facts", {}))
    headers: dict[str, str] = {}
    detail = str(error)
    if error.hint:
        facts["hint"] = error.hint
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request failed", extra={"error": f"{kind.__name__}: {error}"})
        detail = (kind.__doc__ or "The server failed.").partition("\n")[0]
        facts.pop("hint", None)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "5"
    if isinstance(error, (TooManyRequestsError, BlocksBeingDeletedError)):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="oscirc"'
    return problem(kind.__name__, status, detail, facts=facts, headers=headers)


async def _oscirc_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OscircError)  # noqa: S101  (registered for it)
    return problem_of(error)


def _methods(request: Request) -> str:
    """What a path may be asked with: of every route that it fits, not of the first one only."""
    allowed = [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": "GET" if method == "HEAD" else method})[0] is Match.FULL
            for route in request.app.router.routes
        )
    ]
    return ", ".join(allowed)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for it)
    kind = "".join(word.capitalize() for word in HTTPStatus(error.status_code).phrase.split()) + "Error"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _methods(request)
    return problem(kind, error.status_code, str(error.detail), headers=headers)


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for it)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    detail = f"{where}: {first['msg']}"
    return problem("RequestRefusedError", HTTPStatus.UNPROCESSABLE_ENTITY, detail)


async def _database_error(request: Request, error: Exception) -> Response:
    if isinstance(error, DataError):  # PostgreSQL takes no U+0000 in a text, which SQLite merely does not find
        # Neither the path, the statement nor the driver's words: they quote what was asked, which may be a secret.
        route = str(getattr(request.scope.get("route"), "path", ""))
        facts = {"method": request.method, "route": route, "error": type(error.orig).__name__}
        _log.warning("the database refused a value of a request", extra=facts)
        detail = "The request holds a character or a number that cannot be looked for."
        return problem("RequestRefusedError", HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    _log.error("database failed", extra={"error": str(error)[:500]})
    headers = {"Retry-After": "5"}
    detail = "The server's database cannot be used at the moment."
    return problem("DatabaseError", HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers)


async def _disconnected(_request: Request, _error: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return problem("InternalError", HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says how.")


def install(app: FastAPI) -> None:
    """Answer every error of this application with a problem."""
    app.add_exception_handler(OscircError, _oscirc_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(SQLAlchemyError, _database_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _unexpected)
