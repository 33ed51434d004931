"""Roles above the publishers, signed by an administrator elsewhere: targets, root, `repository.json`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Base64Bytes, BaseModel

from oscirc_blockstore.repository_facts import MAX_BYTES
from oscirc_server.api.bodies import documented, documented_raw, json_body, raw_body
from oscirc_server.api.conditions import CurrentCondition
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.document import refusals
from oscirc_server.api.security import Administrator
from oscirc_server.metadata import MAX_ROLE_BYTES, MAX_ROOT_BYTES
from oscirc_server.services import role_metadata, roles
from oscirc_server.services.roles import RoleAccepted, SignedTogether

MAX_ROLES_BODY_BYTES = 8 << 20  # base64 of the longest root and targets role that a client reads

_JSON = documented_raw("application/json")
router = APIRouter(tags=["administration"])


class RoleDocument(BaseModel):
    """What took force, and which publishers must sign anew because their keys changed."""

    version: int
    snapshot_version: int
    unsigned_publishers: list[str]


def _document(accepted: RoleAccepted) -> RoleDocument:
    return RoleDocument(
        version=accepted.version,
        snapshot_version=accepted.snapshot_version,
        unsigned_publishers=list(accepted.unsigned_publishers),
    )


class RolesOffer(BaseModel):
    """What people signed together, base64: a root, a targets role, or both, and the `repository.json` it names anew."""

    root: Base64Bytes | None = None
    targets: Base64Bytes | None = None
    repository: Base64Bytes | None = None


@router.put("/roles", openapi_extra=documented(RolesOffer), responses=refusals(409))
def put_roles(
    principal: Administrator,
    body: Annotated[RolesOffer, Depends(json_body(RolesOffer, MAX_ROLES_BODY_BYTES))],
    installation: CurrentInstallation,
) -> RoleDocument:
    """Let a root and a targets role take force together; those that are in force already are passed over."""
    offered = SignedTogether(body.root, body.targets, body.repository)
    return _document(roles.accept_together(installation, offered, actor=principal.actor))


@router.put("/roles/targets", openapi_extra=_JSON, responses=refusals(409, 412))
def put_targets(
    principal: Administrator,
    condition: CurrentCondition,
    body: Annotated[bytes, Depends(raw_body(MAX_ROLE_BYTES))],
    installation: CurrentInstallation,
) -> RoleDocument:
    """The next targets role: publishers, their keys, `repository.json`."""
    with installation.database.read() as session:
        condition(role_metadata.current_etag(session, "targets"))
    return _document(roles.accept_targets(installation, body, actor=principal.actor))


@router.put("/roles/root", openapi_extra=_JSON, responses=refusals(409, 412))
def put_root(
    principal: Administrator,
    condition: CurrentCondition,
    body: Annotated[bytes, Depends(raw_body(MAX_ROOT_BYTES))],
    installation: CurrentInstallation,
) -> RoleDocument:
    """The next root."""
    with installation.database.read() as session:
        condition(role_metadata.current_etag(session, "root"))
    return _document(roles.accept_root(installation, body, actor=principal.actor))


@router.put("/documents/repository.json", status_code=HTTPStatus.NO_CONTENT, openapi_extra=_JSON)
def put_repository_facts(
    _principal: Administrator, body: Annotated[bytes, Depends(raw_body(MAX_BYTES))], installation: CurrentInstallation
) -> None:
    """Keep a `repository.json` for the targets role that will name it."""
    roles.stage_repository_facts(installation, body)
