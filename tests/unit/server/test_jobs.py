"""The queue: a job is one worker's at a time, outlives workers, ends in one way, and is asked for once."""

import pytest
from sqlalchemy import select

from oscirc_blockstore.errors import NotFoundError
from oscirc_server.errors import ConflictError
from oscirc_server.models import AuditRow, JobRow
from oscirc_server.services import jobs
from oscirc_server.services.jobs import BUNDLE_JOB, BY_POLICY, DELTA_JOB, LEASE_S, MAX_ATTEMPTS, PLAN, RETRY_S, Wanted

DELTA = Wanted(DELTA_JOB, "alice", "debian", "2.0", "1.0")
BUNDLE = Wanted(BUNDLE_JOB, "alice", "debian", "2.0", "boot")


@pytest.fixture
def queue(installation, world):
    def queueing(wanted=DELTA, *, requested_by="somebody", priority=jobs.ASKED_FOR):
        with installation.database.write() as session:
            return jobs.queue(session, wanted, int(world.clock()), requested_by=requested_by, priority=priority)

    return queueing


def state(installation, job):
    with installation.database.read() as session:
        return jobs.find(session, job)


def test_what_was_asked_for_comes_first_then_the_oldest(installation, queue):
    policy = queue(Wanted(DELTA_JOB, "alice", "debian", "3.0", "2.0"), priority=BY_POLICY)
    first, second = queue(DELTA), queue(BUNDLE)
    assert [jobs.take(installation, "w").id for _ in range(3)] == [first.id, second.id, policy.id]
    assert jobs.take(installation, "w") is None


def test_asking_again_gives_the_job_that_waits_and_makes_haste_of_it(installation, queue):
    first = queue(DELTA, priority=BY_POLICY)
    queue(BUNDLE, priority=BY_POLICY)
    assert queue(DELTA).id == first.id
    queue(BUNDLE, priority=BY_POLICY)
    assert jobs.take(installation, "w").id == first.id
    assert queue(DELTA).id != first.id  # one that runs may have looked before what changed


def test_a_job_is_one_workers_until_its_lease_runs_out(installation, world, queue):
    job = queue()
    assert jobs.take(installation, "one").attempts == 1
    assert jobs.take(installation, "two") is None
    world.clock.advance(LEASE_S - 1)
    assert jobs.renew(installation, job.id, "one")
    world.clock.advance(LEASE_S)
    assert jobs.take(installation, "two") is None
    world.clock.advance(1)
    assert jobs.take(installation, "two").attempts == 2
    assert not jobs.renew(installation, job.id, "one")
    assert not jobs.finish(installation, job.id, "one", {})
    assert not jobs.give_back(installation, job, "one")
    with installation.database.write() as session:
        assert not jobs.is_held(session, job.id, "one")
        assert jobs.is_held(session, job.id, "two")
    assert jobs.finish(installation, job.id, "two", {"length": 5})
    assert (state(installation, job.id).state, state(installation, job.id).result) == ("done", {"length": 5})


def test_a_job_whose_workers_die_fails_after_the_last_attempt(installation, world, queue):
    job = queue()
    for _ in range(MAX_ATTEMPTS):
        assert jobs.take(installation, "w").id == job.id
        world.clock.advance(LEASE_S + 1)
    assert jobs.take(installation, "w") is None
    failed = state(installation, job.id)
    assert (failed.state, failed.attempts) == ("failed", MAX_ATTEMPTS)
    assert "gone" in failed.error


def test_what_may_pass_is_tried_again_later_each_time_and_what_does_not_pass_is_not(installation, world, queue):
    job = queue()
    waits = []
    for attempt in range(MAX_ATTEMPTS):
        taken = jobs.take(installation, "w")
        assert taken.attempts == attempt + 1
        assert jobs.fail(installation, taken, "w", "the store is away", may_pass=True)
        waits.append(state(installation, job.id).not_before_s - int(world.clock()))
        assert jobs.take(installation, "w") is None
        world.clock.advance(max(0, waits[-1]))
    assert waits[:2] == [RETRY_S, 4 * RETRY_S]
    assert state(installation, job.id).state == "failed"
    other = queue(BUNDLE)
    assert jobs.fail(installation, jobs.take(installation, "w"), "w", "x" * 5000, may_pass=False)
    failed = state(installation, other.id)
    assert (failed.state, len(failed.error)) == ("failed", jobs.MAX_ERROR_CHARS)


def test_a_stop_of_the_worker_counts_no_attempt(installation, queue):
    job = queue()
    for _ in range(2 * MAX_ATTEMPTS):
        assert jobs.give_back(installation, jobs.take(installation, "w"), "w")
    assert (state(installation, job.id).state, state(installation, job.id).attempts) == ("queued", 0)


def test_what_is_put_back_gives_way_to_the_same_that_was_asked_for_meanwhile(installation, queue):
    first = queue()
    taken = jobs.take(installation, "w")
    second = queue()
    assert jobs.give_back(installation, taken, "w")
    assert state(installation, first.id).state == "cancelled"
    assert jobs.take(installation, "w").id == second.id


def test_a_cancelled_job_is_its_workers_no_more_and_can_be_tried_again(installation, queue):
    job = queue()
    jobs.take(installation, "w")
    assert jobs.cancel(installation, job.id, actor="root").state == "cancelled"
    assert not jobs.renew(installation, job.id, "w")
    assert jobs.cancel(installation, job.id, actor="root").state == "cancelled"
    assert jobs.retry(installation, job.id, actor="root").state == "queued"
    with pytest.raises(ConflictError):
        jobs.retry(installation, job.id, actor="root")
    with installation.database.read() as session:
        done = session.scalars(select(AuditRow.action).where(AuditRow.action.like("job.%"))).all()
    assert done == ["job.cancel", "job.retry"]


def test_a_retry_beside_the_same_job_that_waits_is_refused(installation, queue):
    job = queue()
    jobs.cancel(installation, job.id, actor="root")
    queue()
    with pytest.raises(ConflictError):
        jobs.retry(installation, job.id, actor="root")


def test_a_plan_that_is_done_leaves_nothing_behind(installation, queue):
    job = queue(Wanted(PLAN, "alice", "debian"))
    jobs.take(installation, "w")
    assert jobs.finish(installation, job.id, "w", {})
    with pytest.raises(NotFoundError):
        state(installation, job.id)


def test_no_publisher_fills_the_queue_and_what_policy_wants_always_has_room(installation, queue, monkeypatch):
    monkeypatch.setattr(jobs, "MAX_WAITING", 2)
    queue(DELTA)
    queue(BUNDLE)
    with pytest.raises(ConflictError):
        queue(Wanted(DELTA_JOB, "alice", "debian", "3.0", "2.0"))
    queue(Wanted(DELTA_JOB, "bob", "debian", "3.0", "2.0"))
    queue(Wanted(PLAN, "alice", "debian"), priority=BY_POLICY)
    queue(Wanted(DELTA_JOB, "alice", "debian", "3.0", "2.0"), priority=BY_POLICY)


def test_ended_jobs_are_forgotten_after_a_month_or_when_there_are_many(installation, world, queue, monkeypatch):
    for number in range(5):
        job = queue(Wanted(DELTA_JOB, "alice", "debian", "2.0", f"1.{number}"))
        jobs.cancel(installation, job.id, actor="root")
    waiting = queue()
    monkeypatch.setattr(jobs, "KEEP_ROWS", 3)
    jobs.prune(installation)
    with installation.database.read() as session:
        assert session.query(JobRow).count() == 4
    world.clock.advance(jobs.KEEP_S + 1)
    jobs.prune(installation)
    with installation.database.read() as session:
        assert [row.id for row in session.query(JobRow)] == [waiting.id]


def test_pages_go_from_the_newest_to_the_oldest_and_show_only_ones_own(installation, queue):
    for number in range(5):
        queue(Wanted(DELTA_JOB, "alice" if number % 2 else "bob", "debian", "2.0", f"1.{number}"))
    with installation.database.read() as session:
        first = jobs.page(session, limit=3)
        rest = jobs.page(session, limit=3, after=first.after)
        assert [each.id for each in (*first.jobs, *rest.jobs)] == [5, 4, 3, 2, 1]
        assert rest.after is None
        assert [each.id for each in jobs.page(session, publishers=["alice"]).jobs] == [4, 2]
        assert jobs.page(session, publishers=[]).jobs == ()
        assert jobs.page(session, state="running").jobs == ()
