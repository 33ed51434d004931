"""A publisher's pages: its keys and role, what it keeps, its drafts, its versions. For whoever may read there.

- Nothing here signs. What a publisher's key must say (withdraw, restore, renew) is shown as the command to run where
  the key is, with the words of the form in it, quoted for a shell.
- What can be done here is what the token API lets the same person do, by the same services: a draft is abandoned by
  whoever may publish, after a page that says what that means.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import NotFoundError
from oscirc_server import alarms, delegations, repository
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.services import authority, catalog, draft_progress, drafts, pages, quotas, versions
from oscirc_server.services.authority import Principal
from oscirc_server.services.catalog import PublisherFacts
from oscirc_server.web import inner, rendering
from oscirc_server.web.inner import PAGE_ROWS, InnerRoute, Member, Place
from oscirc_server.web.protection import Form

PAGE_VERSIONS: Final = 50
MAX_WHY_CHARS: Final = 500

router = APIRouter(include_in_schema=False, route_class=InnerRoute)

Words = Annotated[str, Query(max_length=MAX_WHY_CHARS)]
Label = Annotated[str, Query(max_length=63)]


def _readable(session: Session, principal: Principal, after: str) -> tuple[list[PublisherFacts], str | None]:
    known = delegations.publishers(repository.current_targets(session).signed)
    names, place = pages.of_names([name for name in known if principal.may(authority.READ, name)], after, PAGE_ROWS)
    return [catalog.publisher(session, name) for name in names], place


@router.get("/publishers")
def overview(request: Request, principal: Member, installation: CurrentInstallation, after: Place = "") -> Response:
    """The publishers that the member may look into."""
    now_s = installation.now_s()
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        found, place = _readable(session, principal, after)
        rows = [(facts, quotas.usage(session, facts.name)) for facts in found]
    return rendering.page("publishers.html", {**values, "rows": rows, "now_s": now_s, "next": place})


@router.get("/publishers/{publisher}")
def publisher_page(publisher: str, request: Request, principal: Member, installation: CurrentInstallation) -> Response:
    """One publisher: keys, role, quota, drafts, images."""
    principal.require(authority.READ, publisher)
    now_s = installation.now_s()
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        facts = catalog.publisher(session, publisher)
        usage = quotas.usage(session, publisher)
        health = [role for role in alarms.roles_of(session, now_s) if role.role == publisher]
    shown = {
        "publisher": facts,
        "usage": usage,
        "roles": health,
        "drafts": draft_progress.of_publisher(installation, publisher),
        "now_s": now_s,
        "may_publish": principal.may(authority.PUBLISH, publisher),
        "may_manage": principal.may(authority.MANAGE, publisher),
    }
    return rendering.page("publisher.html", {**values, **shown})


def _own_draft(installation: CurrentInstallation, principal: Principal, publisher: str, draft_id: str) -> None:
    """Raise unless this is a draft of the publisher, whom the member may publish as."""
    principal.require_publisher(publisher)
    if drafts.get(installation, draft_id).publisher != publisher:
        raise NotFoundError(f"there is no draft {draft_id[:32]!r}")


@router.get("/publishers/{publisher}/drafts/{draft_id}/abandon")
def ask_to_abandon(
    publisher: str, draft_id: str, request: Request, principal: Member, installation: CurrentInstallation
) -> Response:
    """What abandoning a draft means, and the button."""
    _own_draft(installation, principal, publisher, draft_id)
    draft = drafts.get(installation, draft_id)
    drafts.require_open(draft)
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
    return rendering.page("abandon.html", {**values, "draft": draft})


@router.post("/publishers/{publisher}/drafts/{draft_id}/abandon")
def abandon(
    publisher: str, draft_id: str, _form: Form, principal: Member, installation: CurrentInstallation
) -> Response:
    """End a draft that was not released."""
    _own_draft(installation, principal, publisher, draft_id)
    drafts.discard(installation, draft_id, actor=principal.actor)
    return inner.done(f"../../../{publisher}", "abandoned")


@router.get("/publishers/{publisher}/images/{image}")
def versions_page(
    publisher: str,
    image: str,
    request: Request,
    principal: Member,
    installation: CurrentInstallation,
    after: Label = "",
) -> Response:
    """Every version of an image, whatever became of it."""
    principal.require(authority.READ, publisher)
    with installation.database.read() as session:
        rows, place = versions.page(session, publisher, image, after=after, limit=PAGE_VERSIONS)
        channels = versions.channels_of(versions.index_of(session, publisher, image))
        values = inner.common(session, request, principal)
        shown = {"publisher": publisher, "image": image, "rows": rows, "channels": channels, "next": place}
        return rendering.page("publisher_versions.html", {**values, **shown})


def yank_command(local_name: str, reference: str, why: str, *, security: bool) -> str:
    """What withdraws a version, on one line for a shell; control characters become spaces."""
    words = "".join(char if char.isprintable() else " " for char in why).strip()
    line = f"oscirc yank {local_name}:{reference} --why {shlex.quote(words)}"
    return f"{line}{' --security' if security else ''} --key KEY"


@router.get("/publishers/{publisher}/images/{image}/versions/{label}")
def version_page(
    publisher: str,
    image: str,
    label: str,
    request: Request,
    principal: Member,
    installation: CurrentInstallation,
    why: Words = "",
    security: Annotated[str, Query(max_length=2)] = "",
) -> Response:
    """One version: how to withdraw it (with the reason of the form), or to offer it again."""
    principal.require(authority.READ, publisher)
    with installation.database.read() as session:
        row = versions.find(session, publisher, image, label)
        values = inner.common(session, request, principal)
        reference = f"{publisher}/{image}@{row.label}"
        local_name = str(values["local_name"])
        command = yank_command(local_name, reference, why, security=bool(security)) if why.strip() else ""
        shown = {
            "row": row,
            "publisher": publisher,
            "image": image,
            "why": why,
            "security": bool(security),
            "yank_command": command,
            "restore_command": f"oscirc restore {local_name}:{reference} --key KEY",
        }
        return rendering.page("publisher_version.html", {**values, **shown})
