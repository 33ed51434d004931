"""What a server that does no jobs itself says of those who do."""

from dataclasses import replace

import pytest

from oscirc_server import job_worker
from oscirc_server.database import set_fact
from oscirc_server.job_worker import JobWorkers
from oscirc_server.services import job_presence, jobs
from oscirc_server.settings import JobSettings


def stated(http):
    one = http.get("/api/v1/publishers/alice").json()["deltas_made"]
    assert [each["deltas_made"] for each in http.get("/api/v1/publishers").json()["publishers"]] == [one]
    return one


def test_a_worker_beside_a_server_without_jobs_is_heard_of_until_it_is_gone(world, http):
    assert stated(http) == 0
    with world.open() as beside:
        beside.settings = replace(beside.settings, jobs=JobSettings(at_once=1, deltas=3))
        workers = JobWorkers(beside)
        workers._say_present()
        assert stated(http) == 3
        another = JobWorkers(beside)
        another.stop()
        assert stated(http) == 3
        workers.stop()
        assert stated(http) == 0
        job_presence.say(beside, "0123abcd")
    assert stated(http) == 3
    world.clock.advance(job_presence.GONE_AFTER_S)
    assert stated(http) == 3
    world.clock.advance(1)
    assert stated(http) == 0


def test_who_works_says_so_before_it_looks_for_jobs_and_not_each_time(installation, monkeypatch):
    said, taken = [], []
    monkeypatch.setattr(job_presence, "say", lambda *_: said.append(len(taken)))
    installation.settings = replace(installation.settings, jobs=JobSettings(at_once=1))
    workers = JobWorkers(installation, poll_s=0.0)

    def take(_installation, _worker):
        taken.append(1)
        if len(taken) == 3:
            workers._stop.set()

    monkeypatch.setattr(jobs, "take", take)
    workers._run("worker")
    workers.stop()
    assert (said, len(taken)) == ([0], 3)


def test_who_does_jobs_itself_states_its_own(installation, http):
    job_presence.say(installation, "0123abcd")
    installation.settings = replace(installation.settings, jobs=JobSettings(at_once=1, deltas=5))
    assert stated(http) == 5


@pytest.mark.parametrize("said", ["", "x", "1 2 3", "-1 2 0123abcd"])
def test_what_cannot_be_read_is_nobody(installation, http, said):
    with installation.database.write() as session:
        set_fact(session, "jobs.worker", said)
    assert stated(http) == 0


def test_a_busy_worker_is_heard_of_as_often_as_its_lease_allows():
    assert job_worker.RENEW_S <= job_presence.SAY_EVERY_S < job_presence.GONE_AFTER_S
