"""Background jobs: asked for, looked at, tried again, cancelled. An administrator sees all, a publisher its own."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import NotFoundError
from oscirc_server.api.context import CurrentInstallation
from oscirc_server.api.security import Caller
from oscirc_server.clock import date_text
from oscirc_server.installation import Installation
from oscirc_server.services import job_plans, jobs
from oscirc_server.services.authority import Principal
from oscirc_server.services.jobs import JobFacts

State = Literal["queued", "running", "done", "failed", "cancelled"]
_VERSION = "/images/{publisher}/{image}/versions/{version}"
router = APIRouter(tags=["jobs"])


class JobDocument(BaseModel):
    """A job; dates are null where nothing happened yet.

    `of` says what of the version is meant: the version that a delta pack starts from, or the profile of a bundle.
    `result` has what was made (`kind`, `name`, `sha256`, `length` and counts), or `nothing` and why.
    """

    id: int
    kind: str
    publisher: str
    image: str
    version: str
    of: str
    state: State
    attempts: int
    requested_by: str
    created: str
    not_before: str
    started: str | None
    ended: str | None
    result: dict[str, object] | None
    error: str | None


class JobList(BaseModel):
    """Some jobs, the newest first; `next` is the `after` of the following ones, null at the end."""

    jobs: list[JobDocument]
    next: int | None


class AskedDocument(BaseModel):
    """What becomes of a request: the job that makes it, or the SHA-256 of the file `accel/<sha256>` that is there."""

    job: JobDocument | None
    sha256: str | None


_LISTED: dict[int | str, dict[str, object]] = {200: {"model": AskedDocument, "description": "It is listed already."}}


def _date(seconds: int | None) -> str | None:
    return None if seconds is None else date_text(seconds)


def _document(facts: JobFacts) -> JobDocument:
    wanted = facts.wanted
    return JobDocument(
        id=facts.id,
        kind=wanted.kind,
        publisher=wanted.publisher,
        image=wanted.image,
        version=wanted.version,
        of=wanted.argument,
        state=facts.state,  # type: ignore[arg-type]  # one of `jobs.STATES`
        attempts=facts.attempts,
        requested_by=facts.requested_by,
        created=date_text(facts.created_s),
        not_before=date_text(facts.not_before_s),
        started=_date(facts.started_s),
        ended=_date(facts.ended_s),
        result=None if facts.result is None else dict(facts.result),
        error=facts.error,
    )


def _own(installation: Installation, job: int, principal: Principal) -> JobFacts:
    """A job that the caller may see; what is another publisher's is not there for it."""
    with installation.database.read() as session:
        facts = jobs.find(session, job)
    if principal.publishers is not None and facts.wanted.publisher not in principal.publishers:
        raise NotFoundError(f"there is no job {job}")
    return facts


@router.get("/jobs")
def list_jobs(
    principal: Caller,
    installation: CurrentInstallation,
    response: Response,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=jobs.MAX_PAGE)] = jobs.DEFAULT_PAGE,
    after: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
) -> JobList:
    """Jobs, the newest first: all of them for an administrator, a publisher's own for its token."""
    with installation.database.read() as session:
        page = jobs.page(session, publishers=principal.publishers, state=state, after=after, limit=limit)
    if page.after is not None:
        query = urlencode({**({"state": state} if state else {}), "limit": limit, "after": page.after})
        response.headers["Link"] = f'<jobs?{query}>; rel="next"'
    return JobList(jobs=[_document(each) for each in page.jobs], next=page.after)


@router.get("/jobs/{job}")
def get_job(job: int, principal: Caller, installation: CurrentInstallation) -> JobDocument:
    """One job."""
    return _document(_own(installation, job, principal))


@router.post("/jobs/{job}/retry")
def retry_job(job: int, principal: Caller, installation: CurrentInstallation) -> JobDocument:
    """Let a job that failed or was cancelled wait again, with all its attempts; 409 for any other."""
    _own(installation, job, principal)
    return _document(jobs.retry(installation, job, actor=principal.actor))


@router.post("/jobs/{job}/cancel")
def cancel_job(job: int, principal: Caller, installation: CurrentInstallation) -> JobDocument:
    """End a job that waits or runs (its process is killed within seconds); one that has ended stays as it is."""
    _own(installation, job, principal)
    return _document(jobs.cancel(installation, job, actor=principal.actor))


def _asked(found: JobFacts | Accelerator, response: Response) -> AskedDocument:
    if isinstance(found, Accelerator):
        response.status_code = HTTPStatus.OK
        return AskedDocument(job=None, sha256=found.sha256.hex())
    return AskedDocument(job=_document(found), sha256=None)


@router.post(_VERSION + "/deltas/{target}", status_code=HTTPStatus.ACCEPTED, responses=_LISTED)
def ask_for_delta(
    publisher: str,
    image: str,
    version: str,
    target: str,
    principal: Caller,
    installation: CurrentInstallation,
    response: Response,
) -> AskedDocument:
    """Have the delta pack from `version` to `target` made (202), whichever is older; 200 where it is listed."""
    principal.require_publisher(publisher)
    names = publisher, image, target
    return _asked(job_plans.ask_for_delta(installation, names, version, actor=principal.actor), response)


@router.post(_VERSION + "/bundles/{profile}", status_code=HTTPStatus.ACCEPTED, responses=_LISTED)
def ask_for_bundle(
    publisher: str,
    image: str,
    version: str,
    profile: str,
    principal: Caller,
    installation: CurrentInstallation,
    response: Response,
) -> AskedDocument:
    """Have the bundle of a listed profile made (202); 200 where there is one. A fleet's is looked at anew."""
    principal.require_publisher(publisher)
    names = publisher, image, version
    return _asked(job_plans.ask_for_bundle(installation, names, profile, actor=principal.actor), response)
