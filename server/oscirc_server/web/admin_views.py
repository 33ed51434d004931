"""Administrators' pages that show how the server is: storage as pictures, jobs, metadata with its remedies, the audit.

Lists have a place in their address (`after`) and go on by a link; filters are GET forms. Numbers of pictures stand as
text beside them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from oscirc_server import alarms, status
from oscirc_server.api.context import CurrentInstallation, context_of
from oscirc_server.collection.collecting import COLLECTED
from oscirc_server.collection.scrubbing import SCRUBBED, SCRUBBED_TO
from oscirc_server.database import get_fact
from oscirc_server.services import audit, jobs, quotas
from oscirc_server.web import inner, rendering
from oscirc_server.web.drawings import scaled_bars
from oscirc_server.web.inner import PAGE_ROWS, Administrator, InnerRoute, Place
from oscirc_server.web.protection import Form
from oscirc_server.web.status_page import shown_roles

MAX_BARS: Final = 50
_DAY_S: Final = 86_400

router = APIRouter(prefix="/admin", include_in_schema=False, route_class=InnerRoute)

State = Literal["", "queued", "running", "done", "failed", "cancelled"]
Day = Annotated[str, Query(max_length=10)]


def _seconds(fact: str | None) -> int | None:
    return int(fact) if fact is not None and fact.isdigit() else None


@router.get("/storage")
def storage_page(request: Request, principal: Administrator, installation: CurrentInstallation) -> Response:
    """What is kept, by whom, how it grew; the last collection and scrub."""
    figures = context_of(request).figures.current()
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        largest, left_out = quotas.largest(session, MAX_BARS)
        collected, scrubbed = _seconds(get_fact(session, COLLECTED)), _seconds(get_fact(session, SCRUBBED))
        is_scrub_open = bool(get_fact(session, SCRUBBED_TO))
    shown = {
        "figures": figures,
        "sums": scaled_bars(
            [
                ("data of all versions", figures.logical_bytes),
                ("each block once, with tables", figures.unique_bytes),
                ("stored, compressed", figures.stored_bytes),
            ]
        ),
        "publishers": scaled_bars(largest),
        "left_out": left_out,
        "grown": scaled_bars([(month.name, month.stored_bytes) for month in figures.months]),
        "collected_s": collected,
        "scrubbed_s": scrubbed,
        "is_scrub_open": is_scrub_open,
        "now_s": installation.now_s(),
    }
    return rendering.page("admin_storage.html", {**values, **shown})


@router.get("/jobs")
def jobs_page(
    request: Request,
    principal: Administrator,
    installation: CurrentInstallation,
    state: State = "",
    after: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
) -> Response:
    """Background jobs, the newest first."""
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        page = jobs.page(session, state=state or None, after=after, limit=PAGE_ROWS)
    chosen = {"state": state} if state else {}
    link = "" if page.after is None else "?" + urlencode({**chosen, "after": page.after})
    shown = {"jobs": page.jobs, "next": link, "state": state, "states": jobs.STATES, "now_s": installation.now_s()}
    return rendering.page("admin_jobs.html", {**values, **shown})


@router.post("/jobs/{job}/retry")
def retry(job: int, _form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """Let a job that failed or was cancelled wait again."""
    jobs.retry(installation, job, actor=principal.actor)
    return inner.done("../../jobs", "retried")


@router.post("/jobs/{job}/cancel")
def cancel(job: int, _form: Form, principal: Administrator, installation: CurrentInstallation) -> Response:
    """End a job that waits or runs."""
    jobs.cancel(installation, job, actor=principal.actor)
    return inner.done("../../jobs", "cancelled")


@router.get("/metadata")
def metadata_page(request: Request, principal: Administrator, installation: CurrentInstallation) -> Response:
    """Every role's expiry, what is wrong, and the command that helps."""
    found = status.status(installation)
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        every = alarms.roles_of(session, installation.now_s())
    roles = shown_roles(every)
    shown = {"roles": roles, "left_out": len(every) - len(roles), "alarms": found.alarms, "severity": found.severity}
    return rendering.page("admin_metadata.html", {**values, **shown})


def _day(text: str) -> int | None:
    """The beginning of a day (`2026-11-25`, UTC); None for anything else."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except (ValueError, OverflowError):
        return None


@router.get("/audit")
def audit_page(
    request: Request,
    principal: Administrator,
    installation: CurrentInstallation,
    actor: Annotated[str, Query(max_length=80)] = "",
    action: Annotated[str, Query(max_length=40)] = "",
    subject: Annotated[str, Query(max_length=255)] = "",
    since: Day = "",
    until: Day = "",
    after: Place = "",
) -> Response:
    """Who changed what, the newest first."""
    end = _day(until)
    wanted = audit.Wanted(actor, action, subject, _day(since), None if end is None else end + _DAY_S)
    with installation.database.read() as session:
        values = inner.common(session, request, principal)
        rows, place = audit.page(session, wanted, after=after, limit=PAGE_ROWS)
    filters = {"actor": actor, "action": action, "subject": subject, "since": since, "until": until}
    chosen = {name: value for name, value in filters.items() if value}
    link = "" if place is None else "?" + urlencode({**chosen, "after": place})
    return rendering.page("admin_audit.html", {**values, "rows": rows, "filters": filters, "next": link})
