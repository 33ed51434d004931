"""Liveness and readiness, for whatever watches this server."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import OscircError
from oscirc_server import repository
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.installation import Installation
from oscirc_server.status import expired_roles

_log = logging.getLogger(__name__)
router = APIRouter(prefix="/health", tags=["health"])


class Health(BaseModel):
    """`failing` names what does not work: database, store, projection, or an expired role."""

    status: str
    failing: list[str]


@router.get("/live")
def live() -> Health:
    """The process answers."""
    return Health(status="ok", failing=[])


def _failing(installation: Installation) -> list[str]:
    failing: list[str] = []
    try:
        with installation.database.read() as session:
            failing += ["projection"] if repository.is_lagging(installation, session) else []
            failing += [f"{role} expired" for role in expired_roles(session, installation.now_s())]
    except (SQLAlchemyError, OscircError) as error:
        _log.error("not ready", extra={"error": str(error)[:300]})
        failing.append("database")
    try:
        installation.storage.check()
    except OscircError as error:
        _log.error("not ready", extra={"error": str(error)[:300]})
        failing.append("store")
    return failing


@router.get(
    "/ready", responses={503: {"model": Health, "description": "Something does not work: `failing` says what."}}
)
def ready(installation: CurrentInstallation, response: Response) -> Health:
    """Database and store work and the metadata is in force (503 otherwise)."""
    failing = _failing(installation)
    if failing:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Health(status="failing" if failing else "ok", failing=failing)
