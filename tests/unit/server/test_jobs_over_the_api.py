"""Jobs over the API: an administrator sees all, a publisher its own, nobody else any."""

import pytest

from oscirc_server.models import JOB_FAILED, JobRow
from oscirc_server.services import jobs

from .server_world import block

pytestmark = pytest.mark.usefixtures("no_block_lengths")

VERSIONS = "images/alice/debian/versions"


@pytest.fixture
def published(api, alice):
    """debian 1.0 to 3.0; the blocks of 3.0 are others, those of 1.1 the same as those of 1.0."""
    for version, content in (("1.0", "a"), ("1.1", "a"), ("2.0", "b"), ("3.0", "c")):
        disk = alice.build("debian", [block(content), block("same")])
        assert api.publish(alice, "debian", version, disk).status_code == 200


@pytest.fixture
def bob(world, http, admin):
    world.add_publisher("bob")
    return admin.with_token(world.token("publish:bob"))


def test_a_request_becomes_a_job_that_its_publisher_and_an_administrator_see(api, admin, bob, published):
    asked = api.call("POST", f"{VERSIONS}/1.0/deltas/3.0")
    assert asked.status_code == 202, asked.text
    job = asked.json()["job"]
    assert (job["kind"], job["version"], job["of"], job["state"], job["attempts"]) == (
        "delta",
        "3.0",
        "1.0",
        "queued",
        0,
    )
    for caller in (api, admin):
        assert caller.call("GET", f"jobs/{job['id']}").json() == job
        assert job in caller.call("GET", "jobs").json()["jobs"]
    assert bob.call("GET", "jobs").json() == {"jobs": [], "next": None}
    for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
        assert bob.call(method, f"jobs/{job['id']}{path}").status_code == 404
    assert bob.call("POST", f"{VERSIONS}/1.0/deltas/3.0").status_code == 403
    assert bob.call("POST", f"{VERSIONS}/1.0/bundles/boot").status_code == 403


def test_nothing_is_shown_or_done_without_a_token(api, published):
    for method, path in (
        ("GET", "jobs"),
        ("GET", "jobs/1"),
        ("POST", "jobs/1/retry"),
        ("POST", "jobs/1/cancel"),
        ("POST", f"{VERSIONS}/1.0/deltas/2.0"),
        ("POST", f"{VERSIONS}/1.0/bundles/boot"),
    ):
        assert api.with_token(None).call(method, path).status_code == 401
        assert api.with_token("oscirc_wrong").call(method, path).status_code == 401


def test_what_cannot_be_made_is_refused_at_once(api, published):
    for path, status in (
        ("1.0/deltas/9.9", 404),
        ("9.9/deltas/1.0", 404),
        ("1.0/deltas/1.0", 400),
        ("1.0/deltas/1.1", 400),
        ("1.0/bundles/boot", 404),
        ("1.0/bundles/%2e%2e", 400),
    ):
        answer = api.call("POST", f"{VERSIONS}/{path}")
        assert answer.status_code == status, answer.text


def test_jobs_are_cancelled_and_tried_again(api, installation, published):
    job = api.call("POST", f"{VERSIONS}/1.0/deltas/3.0").json()["job"]["id"]
    assert api.call("POST", f"jobs/{job}/retry").status_code == 409
    assert api.call("POST", f"jobs/{job}/cancel").json()["state"] == "cancelled"
    assert api.call("POST", f"jobs/{job}/cancel").json()["state"] == "cancelled"
    assert api.call("POST", f"jobs/{job}/retry").json()["state"] == "queued"
    with installation.database.write() as session:
        row = session.get_one(JobRow, job)
        row.state, row.error = JOB_FAILED, "it did not work"
    assert api.call("GET", "jobs", params={"state": "failed"}).json()["jobs"][0]["error"] == "it did not work"
    assert api.call("POST", f"jobs/{job}/retry").json()["error"] is None


def test_jobs_come_in_pages(api, published):
    for base in ("1.0", "1.1", "2.0"):
        api.call("POST", f"{VERSIONS}/{base}/deltas/3.0")
    first = api.call("GET", "jobs", params={"limit": 2})
    assert len(first.json()["jobs"]) == 2
    assert first.headers["Link"] == f'<jobs?limit=2&after={first.json()["next"]}>; rel="next"'
    seen = [job["id"] for job in first.json()["jobs"]]
    while (after := first.json()["next"]) is not None:
        first = api.call("GET", "jobs", params={"limit": 2, "after": after})
        seen += [job["id"] for job in first.json()["jobs"]]
    assert seen == sorted(set(seen), reverse=True)


def test_a_question_that_makes_no_sense_is_refused(api):
    for query in ("state=sleeping", "limit=0", "limit=9999", "after=0", "after=99999999999999999999"):
        assert api.call("GET", f"jobs?{query}").status_code == 422


def test_a_job_that_there_cannot_be_is_not_found(api):
    for job in ("0", "-5", "99999999999999999999", "9223372036854775807"):
        assert api.call("GET", f"jobs/{job}").status_code == 404


def test_too_many_requests_of_one_publisher_are_refused(api, published, monkeypatch):
    monkeypatch.setattr(jobs, "MAX_WAITING", 1)
    assert api.call("POST", f"{VERSIONS}/1.0/deltas/3.0").status_code == 202
    assert api.call("POST", f"{VERSIONS}/2.0/deltas/3.0").status_code == 409
