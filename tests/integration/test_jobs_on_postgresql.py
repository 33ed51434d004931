"""Jobs in a PostgreSQL that several workers share: each job is taken once, whoever else is taking at that moment."""

import threading
from collections import Counter

import pytest

from oscirc_server.installation import Installation
from oscirc_server.services import jobs
from oscirc_server.services.jobs import DELTA_JOB, PLAN, Wanted
from oscirc_server.settings import Settings

WORKERS = 6
JOBS = 60
NOW_S = 1_800_000_000


@pytest.fixture
def installation(postgresql, tmp_path):
    database = postgresql.create()
    settings = Settings(data_dir=tmp_path, database_url=postgresql.url(database))
    with Installation.create(settings, clock=lambda: NOW_S) as opened:
        yield opened
    postgresql.drop(database)


def at_once(work):
    """Has it done by several threads that begin together; the first failure is raised."""
    barrier, failed = threading.Barrier(WORKERS), []

    def run(number):
        barrier.wait(30)
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  (raised below)
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_many_takers_take_each_job_once_and_leave_none(installation):
    with installation.database.write() as session:
        for number in range(JOBS):
            wanted = Wanted(DELTA_JOB, "alice", "debian", "2.0", f"1.{number}")
            jobs.queue(session, wanted, NOW_S, requested_by="a test")
    taken = []

    def work(number):
        while (job := jobs.take(installation, f"worker {number}")) is not None:
            taken.append(job.id)
            assert jobs.finish(installation, job.id, f"worker {number}", {})

    at_once(work)
    assert len(taken) == JOBS
    assert set(Counter(taken).values()) == {1}


def test_who_asks_for_the_same_at_once_gets_the_same_job(installation):
    ids = []

    def ask(number):
        for _ in range(10):
            with installation.database.write() as session:
                wanted = Wanted(PLAN, "alice", "debian")
                ids.append(jobs.queue(session, wanted, NOW_S, requested_by=f"caller {number}").id)

    at_once(ask)
    assert len(set(ids)) == 1


def test_asking_beside_workers_that_take_loses_no_request(installation):
    """Whatever was asked for last is taken after it was asked for."""
    asked, taken, done = [], [], threading.Event()

    def work(number):
        if number < 2:
            for _ in range(25):
                with installation.database.write() as session:
                    job = jobs.queue(session, Wanted(PLAN, "alice", "debian"), NOW_S, requested_by="a test")
                asked.append(job.id)
            if len(asked) == 50:
                done.set()
            return
        while True:
            last = done.is_set()
            job = jobs.take(installation, f"worker {number}")
            if job is not None:
                taken.append(job.id)
                assert jobs.finish(installation, job.id, f"worker {number}", {})
            elif last:
                return

    at_once(work)
    assert set(asked) <= set(taken)
    assert len(set(taken)) == len(taken)
