"""Policies of images, what they propose, and what a deletion would free: counted, and never done by the server."""

import pytest
from sqlalchemy import select

from oscirc_server.models import AuditRow
from oscirc_server.services import retention

from .server_world import block
from .test_collecting import everything_of
from .test_releases import refused


@pytest.fixture
def disks(api, alice, no_block_lengths):
    made = {}
    for version, contents in {"1": "ab", "2": "bc", "3": "cd"}.items():
        made[version] = alice.build("debian", [block(letter) for letter in contents])
        assert api.publish(alice, "debian", version, made[version]).status_code == 200
    return made


def sizes(records):
    return sum(len(record.frame) for record in records)


def only(disks, *labels):
    others = set().union(*(everything_of(disk) for label, disk in disks.items() if label not in labels))
    unique = {record.digest: record for label in labels for record in disks[label].records}
    return sizes(record for digest, record in unique.items() if digest not in others)


def weigh(api, *labels, image="debian"):
    return api.call("POST", f"images/alice/{image}/deletion", json={"labels": list(labels)})


@pytest.mark.parametrize("labels", [["1"], ["2"], ["1", "2"], ["1", "2", "3"], []])
def test_what_a_deletion_frees_is_what_nothing_else_needs(api, disks, labels):
    assert weigh(api, *labels).json() == {"freed_bytes": only(disks, *labels), "is_exact": True}


def test_what_another_image_or_a_draft_needs_is_not_freed(api, alice, disks):
    assert api.publish(alice, "other", "1", alice.build("other", [block("a")])).status_code == 200
    lacks_a = only(disks, "1") - sizes(record for record in disks["1"].blocks[:1])
    assert weigh(api, "1").json()["freed_bytes"] == lacks_a
    draft = api.draft("alice", "third", "1")
    api.missing(draft, [record.digest for record in disks["1"].records])
    assert weigh(api, "1").json()["freed_bytes"] == 0


def test_one_disk_under_two_labels_is_freed_with_the_last_of_them(api, alice, disks):
    index = alice.index_with("debian", "1.1", disks["1"].digest)
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})).status_code == 200
    assert weigh(api, "1").json()["freed_bytes"] == 0
    assert weigh(api, "1", "1.1").json()["freed_bytes"] == only(disks, "1")


def test_where_too_much_would_be_walked_the_number_is_a_bound(api, disks, monkeypatch):
    monkeypatch.setattr(retention, "MAX_NODES", -1)
    found = weigh(api, "1").json()
    assert not found["is_exact"]
    assert only(disks, "1") <= found["freed_bytes"] <= sizes(disks["1"].records)


def test_a_policy_is_kept_and_planned_and_nothing_is_deleted_by_it(api, disks, installation, http):
    path = "images/alice/debian/retention"
    assert api.call("GET", path).json() == {"keep_last": None, "keep_days": None}
    assert all(choice["keep"] for choice in api.call("GET", f"{path}/plan").json()["choices"])
    assert api.call("PUT", path, json={"keep_last": 2}).json() == {"keep_last": 2, "keep_days": None}
    plan = api.call("GET", f"{path}/plan").json()
    assert [(choice["version"], choice["keep"]) for choice in plan["choices"]] == [
        ("1", False),
        ("2", True),
        ("3", True),
    ]
    assert (plan["freed_bytes"], plan["is_exact"]) == (only(disks, "1"), True)
    assert plan["choices"][2]["reasons"] == ["#stable points at it", "one of the last 2"]
    assert http.get("/api/v1/images/alice/debian").json()["version_count"] == 3
    assert api.call("PUT", path, json={}).json() == {"keep_last": None, "keep_days": None}
    with installation.database.read() as session:
        assert (
            list(session.scalars(select(AuditRow.subject).where(AuditRow.action == "retention.set")))
            == ["alice/debian"] * 2
        )


def test_only_the_publisher_may_ask_and_set(api, disks, world):
    stranger = api.with_token(world.token("publish:bob"))
    for asked in (api.with_token(None), stranger):
        status, kind = (401, "UnauthenticatedError") if asked.token is None else (403, "ScopeError")
        refused(asked.call("PUT", "images/alice/debian/retention", json={"keep_last": 1}), status, kind)
        refused(asked.call("GET", "images/alice/debian/retention"), status, kind)
        refused(asked.call("GET", "images/alice/debian/retention/plan"), status, kind)
        refused(weigh(asked, "1"), status, kind)


def test_what_is_not_there_is_not_found(api, disks):
    refused(weigh(api, "9"), 404, "NotFoundError")
    refused(weigh(api, "1", image="none"), 404, "NotFoundError")
    refused(api.call("PUT", "images/alice/none/retention", json={"keep_last": 1}), 404, "NotFoundError")
    refused(api.call("PUT", "images/alice/debian/retention", json={"keep_last": -1}), 422, "RequestRefusedError")


def test_one_count_at_a_time(api, disks, installation):
    with installation.locks.held(retention.COUNTING):
        assert weigh(api, "1").status_code == 503
