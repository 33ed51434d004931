"""What the database knows, as gauges: right, counted seldom, bounded, and no error of the page when it cannot be asked."""

from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from oscirc_server import metrics_of_state
from oscirc_server.metrics import Metrics
from oscirc_server.metrics_of_state import COUNT_EVERY_S, StateCollector
from oscirc_server.services import jobs

from .server_world import DAY_S, START_S, MovableClock, block


def values(metrics, name):
    """Every sample of that name: its labels, as pairs, and its value."""
    text = generate_latest(metrics.registry).decode()
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def monotonic():
    return MovableClock(0)


@pytest.fixture
def metrics(installation, monotonic):
    made = Metrics()
    made.registry.register(StateCollector(installation, monotonic))
    return made


def test_expiries_blocks_drafts_and_connections_are_there(metrics, installation, api, alice):
    disk = alice.build("debian", [block("a"), block("b")])
    assert api.publish(alice, "debian", "1", disk).status_code == 200
    api.draft("alice", "debian", "2")
    expiries = values(metrics, "oscirc_server_role_expires_timestamp_seconds")
    assert set(expiries) == {(("role", r),) for r in ("root", "targets", "snapshot", "timestamp", "alice")}
    assert all(expiry > START_S for expiry in expiries.values())
    assert values(metrics, "oscirc_server_blocks") == {(("state", "live"),): len(disk.records)}
    size = sum(len(record.frame) for record in disk.records)
    assert values(metrics, "oscirc_server_block_bytes") == {(("state", "live"),): size}
    assert values(metrics, "oscirc_server_open_drafts") == {(): 1}
    assert values(metrics, "oscirc_server_images") == {(): 1}
    assert values(metrics, "oscirc_server_projection_pending") == {(): 0}
    assert values(metrics, "oscirc_server_database_connections")[(("state", "in_use"),)] == 0
    assert values(metrics, "oscirc_server_database_connections_limit")[()] >= 5
    free = values(metrics, "oscirc_server_storage_free_bytes")
    assert free[()] > 0 if installation.storage.local_path("") else free == {}  # nobody knows of a bucket's
    assert values(metrics, "oscirc_server_up_to_date") == {(): 1}


def test_rows_are_counted_once_a_minute_whatever_is_scraped(metrics, monotonic, api):
    assert values(metrics, "oscirc_server_open_drafts") == {(): 0}
    api.draft("alice", "debian", "2")
    assert values(metrics, "oscirc_server_open_drafts") == {(): 0}
    monotonic.advance(COUNT_EVERY_S)
    assert values(metrics, "oscirc_server_open_drafts") == {(): 1}


def test_a_database_that_is_gone_shows_what_was_known_last(metrics, monotonic, installation, api, monkeypatch):
    api.draft("alice", "debian", "2")
    assert values(metrics, "oscirc_server_open_drafts") == {(): 1}

    def fail():
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(installation.database, "read", fail)
    monotonic.advance(COUNT_EVERY_S)
    assert values(metrics, "oscirc_server_up_to_date") == {(): 0}
    assert values(metrics, "oscirc_server_open_drafts") == {(): 1}


def test_the_number_of_publishers_roles_is_bounded_and_the_soonest_are_shown(metrics, installation, monkeypatch):
    known = metrics_of_state.roles_of
    monkeypatch.setattr(metrics_of_state, "MAX_PUBLISHER_ROLES", 2)

    def many(session, now_s):
        real = known(session, now_s)
        return (*real, *(replace(real[0], role=f"p{number}", expires_s=START_S + 100 - number) for number in range(5)))

    monkeypatch.setattr(metrics_of_state, "roles_of", many)
    roles = {labels[0][1] for labels in values(metrics, "oscirc_server_role_expires_timestamp_seconds")}
    assert roles == {"root", "targets", "snapshot", "timestamp", "p4", "p3"}


def test_severities_are_those_of_the_alarms(metrics, world, monotonic):
    assert set(values(metrics, "oscirc_server_role_severity").values()) == {0}
    world.clock.advance(8 * DAY_S)
    monotonic.advance(COUNT_EVERY_S)
    severities = values(metrics, "oscirc_server_role_severity")
    assert (severities[(("role", "timestamp"),)], severities[(("role", "root"),)]) == (3, 0)


def test_jobs_are_counted_by_kind_and_state_and_the_oldest_waits_for_all(metrics, monotonic, installation, world):
    with installation.database.write() as session:
        jobs.queue(
            session, jobs.Wanted("delta", "alice", "debian", "1", "from-0"), installation.now_s(), requested_by="x"
        )
        jobs.note(session, "alice", ["debian"], installation.now_s())
    world.clock.advance(90)
    monotonic.advance(COUNT_EVERY_S)
    found = values(metrics, "oscirc_server_jobs")
    assert found[("kind", "delta"), ("state", "queued")] == 1
    assert sum(found.values()) == 2
    assert values(metrics, "oscirc_server_job_waiting_seconds") == {(): 90}
