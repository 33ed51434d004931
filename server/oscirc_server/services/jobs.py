"""The queue of background jobs: who may take one, whose it is, how it ends (docs/adr/0023-jobs-at-the-server.md).

- **At most one of a kind and subject waits.** Asking for it again gives the one that waits. One that runs does not
  count: it may have looked before what changed.
- **A job is taken in one transaction**, by one worker, for `LEASE_S`; the worker renews. On PostgreSQL takers pass over
  rows that another is taking (`SKIP LOCKED`), on SQLite there is one writer.
- **Every later step names the worker** and changes nothing when the job is no longer its own: a worker that lost its
  lease, or whose job was cancelled, can do no harm.
- **A job ends its process at most `MAX_ATTEMPTS` times.** What no second try changes fails at once; what may pass (a
  store that does not answer, a full disk) is tried again later and later. A stop of the worker counts nothing.
- Ended jobs are kept for `KEEP_S`, at most `KEEP_ROWS` of them. How many may wait for a publisher is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CursorResult, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import NotFoundError
from oscirc_server.database import insert_new
from oscirc_server.errors import ConflictError
from oscirc_server.installation import Installation
from oscirc_server.models import JOB_CANCELLED, JOB_DONE, JOB_FAILED, JOB_QUEUED, JOB_RUNNING, JobRow
from oscirc_server.services import audit

PLAN = "plan"
BUNDLE_JOB = "bundle"
DELTA_JOB = "delta"
KINDS = (BUNDLE_JOB, DELTA_JOB, PLAN)
STATES = (JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED)
ASKED_FOR, BY_POLICY = 0, 1
POLICY = "policy"

LEASE_S = 30
MAX_ATTEMPTS = 3
RETRY_S = 60
MAX_WAITING = 500  # of one publisher
MAX_ERROR_CHARS = 2000
MAX_PAGE = 200
DEFAULT_PAGE = 50
KEEP_S = 30 * 86_400
KEEP_ROWS = 10_000

_ENDED = (JOB_DONE, JOB_FAILED, JOB_CANCELLED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done: a kind, a version, and what of it (a profile's name, or the version to start from)."""

    kind: str
    publisher: str
    image: str
    version: str = ""
    argument: str = ""

    @property
    def names(self) -> tuple[str, str, str]:
        """Publisher, image and version."""
        return self.publisher, self.image, self.version

    @property
    def subject(self) -> str:
        """The version, or the image, as people write it."""
        return f"{self.publisher}/{self.image}" + (f"@{self.version}" if self.version else "")


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job as it stands; times in seconds since the epoch."""

    id: int
    wanted: Wanted
    state: str
    attempts: int
    requested_by: str
    not_before_s: int
    result: Mapping[str, object] | None
    error: str | None
    created_s: int
    started_s: int | None
    ended_s: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, the newest first; `after` is where the next page begins, None at the end."""

    jobs: tuple[JobFacts, ...]
    after: int | None


def _facts(row: JobRow) -> JobFacts:
    wanted = Wanted(row.kind, row.publisher, row.image, row.version, row.argument)
    return JobFacts(
        row.id,
        wanted,
        row.state,
        row.attempts,
        row.requested_by,
        row.not_before_s,
        None if row.result is None else json.loads(row.result),
        row.error,
        row.created_s,
        row.started_s,
        row.ended_s,
    )


def _is(wanted: Wanted) -> tuple[ColumnElement[bool], ...]:
    return (
        JobRow.kind == wanted.kind,
        JobRow.publisher == wanted.publisher,
        JobRow.image == wanted.image,
        JobRow.version == wanted.version,
        JobRow.argument == wanted.argument,
    )


def queue(session: Session, wanted: Wanted, now_s: int, *, requested_by: str, priority: int = ASKED_FOR) -> JobFacts:
    """Have it done, within a transaction of the caller's; the one that waits already is the answer where there is one.

    `ConflictError` where too many that were asked for wait for this publisher; what policy wants is bounded by itself.
    """
    if priority == ASKED_FOR:
        waiting = (JobRow.publisher == wanted.publisher, JobRow.state == JOB_QUEUED, JobRow.priority == ASKED_FOR)
        if (session.scalar(select(func.count()).select_from(JobRow).where(*waiting)) or 0) >= MAX_WAITING:
            raise ConflictError(
                f"{MAX_WAITING} jobs of {wanted.publisher} are waiting already", hint="see them: oscirc jobs list"
            )
    row = {
        "kind": wanted.kind,
        "publisher": wanted.publisher,
        "image": wanted.image,
        "version": wanted.version,
        "argument": wanted.argument,
        "state": JOB_QUEUED,
        "priority": priority,
        "attempts": 0,
        "not_before_s": now_s,
        "requested_by": requested_by[:80],
        "created_s": now_s,
    }
    found = None
    while found is None:  # the one that waited may be taken between these two
        insert_new(session, JobRow, [row])
        found = session.scalar(select(JobRow).where(*_is(wanted), JobRow.state == JOB_QUEUED))
    found.priority = min(found.priority, priority)
    return _facts(found)


def note(session: Session, publisher: str, images: Iterable[str], now_s: int) -> None:
    """These images changed: what they lack is looked for, soon (`job_plans.plan`)."""
    for image in images:
        queue(session, Wanted(PLAN, publisher, image), now_s, requested_by=POLICY, priority=BY_POLICY)


def take(installation: Installation, worker: str) -> JobFacts | None:
    """The next job, which is this worker's for `LEASE_S`; None where nothing is due."""
    now_s = installation.now_s()
    ready = and_(JobRow.state == JOB_QUEUED, JobRow.not_before_s <= now_s)
    left = and_(JobRow.state == JOB_RUNNING, JobRow.lease_s < now_s)
    query = (
        select(JobRow)
        .where(or_(ready, left))
        .order_by(JobRow.priority, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    with installation.database.read() as session:  # most looks find nothing: they are not to hold up writers
        if session.scalar(select(JobRow.id).where(or_(ready, left)).limit(1)) is None:
            return None
    while True:
        with installation.database.write() as session:
            row = session.scalar(query)
            if row is None:
                return None
            if row.attempts >= MAX_ATTEMPTS:
                _end(row, JOB_FAILED, now_s, error="whatever worked on it was gone before it was done")
                continue
            row.state, row.worker, row.lease_s = JOB_RUNNING, worker, now_s + LEASE_S
            row.attempts += 1
            row.started_s, row.ended_s, row.error = now_s, None, None
            return _facts(row)


def is_held(session: Session, job: int, worker: str) -> bool:
    """Whether the job is still this worker's, and stays so until the transaction ends."""
    held = (JobRow.id == job, JobRow.worker == worker, JobRow.state == JOB_RUNNING)
    return session.scalar(select(JobRow.id).where(*held).with_for_update()) is not None


def renew(installation: Installation, job: int, worker: str) -> bool:
    """Hold the job for another `LEASE_S`; False when it is no longer this worker's."""
    return _change(installation, job, worker, lease_s=installation.now_s() + LEASE_S)


def finish(installation: Installation, job: int, worker: str, result: Mapping[str, object]) -> bool:
    """It is done. A plan that is done leaves nothing behind."""
    text = json.dumps(result, sort_keys=True)
    with installation.database.write() as session:
        gone = (JobRow.id == job, JobRow.worker == worker, JobRow.state == JOB_RUNNING, JobRow.kind == PLAN)
        if _rows(session.execute(delete(JobRow).where(*gone))):
            return True
    return _change(installation, job, worker, state=JOB_DONE, result=text, lease_s=None, ended_s=installation.now_s())


def fail(installation: Installation, job: JobFacts, worker: str, error: str, *, may_pass: bool) -> bool:
    """It did not work; where that may pass it is tried again, later each time, `MAX_ATTEMPTS` times in all."""
    now_s, text = installation.now_s(), error[:MAX_ERROR_CHARS]
    if may_pass and job.attempts < MAX_ATTEMPTS:
        again_s = now_s + RETRY_S * 4 ** (job.attempts - 1)
        return _put_back(installation, job, worker, not_before_s=again_s, error=text)
    return _change(installation, job.id, worker, state=JOB_FAILED, error=text, lease_s=None, ended_s=now_s)


def give_back(installation: Installation, job: JobFacts, worker: str) -> bool:
    """The worker stops: the job is the next one's, and this attempt was none."""
    return _put_back(installation, job, worker, attempts=job.attempts - 1)


def _put_back(installation: Installation, job: JobFacts, worker: str, **values: object) -> bool:
    """Let it wait again, unless the same was asked for meanwhile: then that one is enough."""
    with installation.database.write() as session:
        if session.scalar(select(JobRow.id).where(*_is(job.wanted), JobRow.state == JOB_QUEUED)) is not None:
            ended_s = installation.now_s()
            return _set(session, job.id, worker, state=JOB_CANCELLED, lease_s=None, ended_s=ended_s)
        return _set(session, job.id, worker, state=JOB_QUEUED, worker=None, lease_s=None, **values)


def _change(installation: Installation, job: int, holder: str, /, **values: object) -> bool:
    with installation.database.write() as session:
        return _set(session, job, holder, **values)


def _set(session: Session, job: int, holder: str, /, **values: object) -> bool:
    held = (JobRow.id == job, JobRow.worker == holder, JobRow.state == JOB_RUNNING)
    return _rows(session.execute(update(JobRow).where(*held).values(**values))) > 0


def _rows(result: object) -> int:
    assert isinstance(result, CursorResult)  # noqa: S101  (what a statement without rows gives)
    return int(result.rowcount)


def _end(row: JobRow, state: str, now_s: int, *, error: str | None = None) -> None:
    row.state, row.lease_s, row.ended_s, row.error = state, None, now_s, error


def find(session: Session, job: int) -> JobFacts:
    """One job, or `NotFoundError`."""
    return _facts(_row(session, job))


def _row(session: Session, job: int) -> JobRow:
    row = session.get(JobRow, job) if 0 < job < 1 << 62 else None
    if row is None:
        raise NotFoundError(f"there is no job {job}", hint="ended ones are kept for 30 days")
    return row


def page(
    session: Session,
    *,
    publishers: Sequence[str] | None = None,
    state: str | None = None,
    after: int | None = None,
    limit: int = DEFAULT_PAGE,
) -> Page:
    """Jobs, the newest first; only those of `publishers`, where these are given."""
    query = select(JobRow).order_by(JobRow.id.desc()).limit(limit + 1)
    if publishers is not None:
        query = query.where(JobRow.publisher.in_(publishers))
    if state is not None:
        query = query.where(JobRow.state == state)
    if after is not None:
        query = query.where(JobRow.id < after)
    found = [_facts(row) for row in session.scalars(query)]
    return Page(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def retry(installation: Installation, job: int, *, actor: str) -> JobFacts:
    """Let a job that failed or was cancelled wait again; `ConflictError` for any other."""
    now_s = installation.now_s()
    with installation.database.write() as session:
        row = _row(session, job)
        if row.state not in (JOB_FAILED, JOB_CANCELLED):
            raise ConflictError(
                f"the job {job} is {row.state}", hint="only what failed or was cancelled is tried again"
            )
        wanted = _facts(row).wanted
        if session.scalar(select(JobRow.id).where(*_is(wanted), JobRow.state == JOB_QUEUED)) is not None:
            raise ConflictError(f"the same as job {job} is waiting already", hint="see it: oscirc jobs list")
        row.state, row.attempts, row.worker, row.lease_s = JOB_QUEUED, 0, None, None
        row.not_before_s, row.ended_s, row.error, row.priority = now_s, None, None, ASKED_FOR
        audit.record(session, now_s, actor, "job.retry", wanted.subject, job=job)
        return _facts(row)


def cancel(installation: Installation, job: int, *, actor: str) -> JobFacts:
    """End a job that waits or runs: its worker finds out at its next renewal; one that ended stays as it is."""
    now_s = installation.now_s()
    with installation.database.write() as session:
        row = _row(session, job)
        if row.state not in _ENDED:
            _end(row, JOB_CANCELLED, now_s)
            audit.record(session, now_s, actor, "job.cancel", _facts(row).wanted.subject, job=job)
        return _facts(row)


def files_of(session: Session, wanted: Wanted) -> set[Digest]:
    """The files that such jobs listed, as far as they are remembered."""
    results = session.scalars(select(JobRow.result).where(*_is(wanted), JobRow.state == JOB_DONE))
    stated = [json.loads(text).get("sha256") for text in results if text is not None]
    return {parse_hex(sha256) for sha256 in stated if sha256 is not None}


def running(session: Session) -> set[int]:
    """The ids of the jobs that run."""
    return set(session.scalars(select(JobRow.id).where(JobRow.state == JOB_RUNNING)))


def prune(installation: Installation) -> None:
    """Forget jobs that ended long ago, and the oldest where there are many."""
    ended = JobRow.state.in_(_ENDED)
    newest = select(JobRow.id).where(ended).order_by(JobRow.id.desc()).limit(KEEP_ROWS)
    overdue = JobRow.ended_s < installation.now_s() - KEEP_S
    with installation.database.write() as session:
        session.execute(delete(JobRow).where(ended, or_(overdue, JobRow.id.not_in(newest))))
