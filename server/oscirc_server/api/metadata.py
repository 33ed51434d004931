"""Signed roles as they are: what stands in the repository's tree, by role instead of by path."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from oscirc_server.api.answers import IMMUTABLE
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.document import produces
from oscirc_server.api.media import JSON
from oscirc_server.api.paging import CurrentPage, link_next
from oscirc_server.clock import date_text
from oscirc_server.models import SignedRole
from oscirc_server.services import role_metadata
from oscirc_server.tree_paths import role_path

router = APIRouter(tags=["metadata"])
_RAW = produces(JSON, "TUF metadata, byte for byte as it was signed.")
RoleName = Annotated[str, Path(max_length=63, description="`root`, `targets`, `snapshot`, `timestamp` or a publisher.")]


class RoleFactsDocument(BaseModel):
    """A role in force; `path` is where its metadata stands below the repository's URL."""

    role: str
    role_version: int
    signed: str
    expires: str
    length: int
    path: str


class RoleList(BaseModel):
    """Some roles by name; `next` is the `after` of the following ones, null at the end."""

    roles: list[RoleFactsDocument]
    next: str | None


def _facts(row: SignedRole) -> RoleFactsDocument:
    return RoleFactsDocument(
        role=row.role,
        role_version=row.version,
        signed=date_text(row.signed_s),
        expires=date_text(row.expires_s),
        length=len(row.raw),
        path=role_path(row.role, row.version),
    )


def _raw(row: SignedRole, cache_control: str | None = None) -> Response:
    headers = {"ETag": role_metadata.etag(row)} | ({"Cache-Control": cache_control} if cache_control else {})
    return Response(row.raw, media_type=JSON, headers=headers)


@router.get("/roles")
def list_roles(page: CurrentPage, installation: CurrentInstallation, request: Request, response: Response) -> RoleList:
    """Every role in force, by name; that of a removed publisher stays, as TUF asks."""
    with installation.database.read() as session:
        rows, place = role_metadata.page(session, after=page.after, limit=page.limit)
    link_next(request, response, place)
    return RoleList(roles=[_facts(row) for row in rows], next=place)


@router.get("/roles/{role}", responses=_RAW, response_class=Response)
def get_role(role: RoleName, installation: CurrentInstallation) -> Response:
    """The metadata of a role in force. Its ETag is what `If-Match` of the next one may name."""
    with installation.database.read() as session:
        return _raw(role_metadata.in_force(session, role))


@router.get("/roles/{role}/versions/{number}", responses=_RAW, response_class=Response)
def get_role_version(
    role: RoleName,
    number: Annotated[int, Path(ge=1, le=10**12, description="A version of the role.")],
    installation: CurrentInstallation,
) -> Response:
    """One version of a role's metadata."""
    with installation.database.read() as session:
        return _raw(role_metadata.version(session, role, number), IMMUTABLE)


@router.get(
    "/documents/repository.json", responses=produces(JSON, "The document, byte for byte."), response_class=Response
)
def get_repository_facts(installation: CurrentInstallation) -> Response:
    """The `repository.json` in force: the repository's name, mirrors and API."""
    with installation.database.read() as session:
        raw, digest = role_metadata.repository_facts(session)
    return Response(raw, media_type=JSON, headers={"ETag": f'"{digest.hex()}"'})
