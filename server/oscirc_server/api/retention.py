"""Retention policies, and what a deletion would free. The server proposes: a deletion is the publisher's signature."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from oscirc_blockstore.image_index import MAX_VERSIONS
from oscirc_blockstore.retention import MAX_DAYS, Policy
from oscirc_server.api.bodies import documented, json_body
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.security import Caller
from oscirc_server.services import retention
from oscirc_server.services.authority import Principal

router = APIRouter(prefix="/images/{publisher}/{image}", tags=["publishing"])


class RetentionPolicy(BaseModel):
    """What to keep beside versions that channels point at; both null: everything."""

    keep_last: Annotated[int, Field(ge=0, le=MAX_VERSIONS)] | None = None
    keep_days: Annotated[int, Field(ge=0, le=MAX_DAYS)] | None = None


class RetentionChoice(BaseModel):
    """A version, and why it is kept; without a reason it would be deleted."""

    version: str
    keep: bool
    reasons: list[str]


class RetentionPlan(BaseModel):
    """What the policy would delete now. `freed_bytes` is at most what comes free where it is not `is_exact`."""

    policy: RetentionPolicy
    choices: list[RetentionChoice]
    freed_bytes: int
    is_exact: bool


class Deletion(BaseModel):
    """Versions that somebody thinks of deleting."""

    labels: Annotated[list[str], Field(max_length=MAX_VERSIONS)]


class DeletionCost(BaseModel):
    """Bytes that only these versions need; at most so many where it is not `is_exact`."""

    freed_bytes: int
    is_exact: bool


def _publisher_of_token(publisher: str, principal: Caller) -> Principal:
    principal.require_publisher(publisher)
    return principal


_Publisher = Annotated[Principal, Depends(_publisher_of_token)]


def _document(policy: Policy) -> RetentionPolicy:
    return RetentionPolicy(keep_last=policy.keep_last, keep_days=policy.keep_days)


@router.get("/retention")
def get_retention(publisher: str, image: str, _by: _Publisher, installation: CurrentInstallation) -> RetentionPolicy:
    """What the image's policy is."""
    with installation.database.read() as session:
        return _document(retention.policy_of(session, publisher, image))


@router.put("/retention", openapi_extra=documented(RetentionPolicy))
def set_retention(
    publisher: str,
    image: str,
    by: _Publisher,
    body: Annotated[RetentionPolicy, Depends(json_body(RetentionPolicy))],
    installation: CurrentInstallation,
) -> RetentionPolicy:
    """Set the image's policy. Nothing is deleted by it: `oscirc retention apply` signs what it proposes."""
    policy = Policy(body.keep_last, body.keep_days)
    retention.set_policy(installation, publisher, image, policy, actor=by.actor)
    return _document(policy)


@router.get("/retention/plan")
def get_retention_plan(publisher: str, image: str, _by: _Publisher, installation: CurrentInstallation) -> RetentionPlan:
    """What the policy would delete now, and what that would free."""
    found = retention.plan(installation, publisher, image)
    choices = [
        RetentionChoice(version=each.version.label, keep=each.is_kept, reasons=list(each.reasons))
        for each in found.choices
    ]
    return RetentionPlan(
        policy=_document(found.policy),
        choices=choices,
        freed_bytes=found.freed.freed_bytes,
        is_exact=found.freed.is_exact,
    )


@router.post("/deletion", openapi_extra=documented(Deletion))
def weigh_deletion(
    publisher: str,
    image: str,
    _by: _Publisher,
    body: Annotated[Deletion, Depends(json_body(Deletion, 1 << 20))],
    installation: CurrentInstallation,
) -> DeletionCost:
    """What deleting these versions would free. Nothing is deleted: that is a new index, signed by the publisher."""
    freed = retention.freed_by(installation, publisher, image, body.labels)
    return DeletionCost(freed_bytes=freed.freed_bytes, is_exact=freed.is_exact)
