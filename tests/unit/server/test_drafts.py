"""Drafts: opened, found again, negotiated over, expired."""

import pytest
from sqlalchemy import func, select

from oscirc_blockstore.digests import digest_of
from oscirc_server.collection.collecting import collect
from oscirc_server.models import Draft, Lease
from oscirc_server.services import drafts

from .server_world import BLOCK, DAY_S, Api, block

NAMES = {"publisher": "alice", "image": "debian", "version": "1.0", "block_size": BLOCK}


def test_a_draft_is_opened_once_and_then_found(api):
    first = api.call("POST", "drafts", json=NAMES)
    assert first.status_code == 201
    assert first.json() == {
        **NAMES,
        "id": first.json()["id"],
        "state": "draft",
        "expires": "2027-01-22T08:00:00Z",
        "has_manifest": False,
        "released": None,
    }
    again = api.call("POST", "drafts", json={**NAMES, "block_size": 2 * BLOCK})
    assert (again.status_code, again.json()) == (200, first.json())
    assert api.call("GET", f"drafts/{first.json()['id']}").json() == first.json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("publisher", "?lice"),
        ("publisher", "../alice"),
        ("publisher", "root"),
        ("image", ".."),
        ("image", "a/b"),
        ("image", "Debian"),
        ("version", "1.0/.."),
        ("version", ""),
        ("version", "a" * 64),
    ],
)
def test_names_that_climb_or_glob_or_are_reserved_are_refused(admin, alice, field, value):
    answer = admin.call("POST", "drafts", json={**NAMES, field: value})
    assert (answer.status_code, answer.json()["type"]) == (400, "NameRefusedError")


@pytest.mark.parametrize("size", [0, 1000, 32768, 1 << 21, -1])
def test_other_block_sizes_are_refused(api, size):
    assert api.call("POST", "drafts", json={**NAMES, "block_size": size}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"publisher": 1}'])
def test_a_body_that_names_no_draft_is_refused(api, body):
    answer = api.call("POST", "drafts", content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "RequestRefusedError")


def test_only_publishers_of_the_repository_have_drafts(admin):
    answer = admin.call("POST", "drafts", json={**NAMES, "publisher": "nobody"})
    assert (answer.status_code, answer.json()["type"]) == (404, "NotFoundError")


def test_a_token_opens_drafts_of_its_publisher_only(world, http):
    world.add_publisher("bob")
    answer = Api(http, world.token("publish:bob")).call("POST", "drafts", json=NAMES)
    assert (answer.status_code, answer.json()["type"]) == (403, "ScopeError")


def test_a_publisher_has_a_bounded_number_of_open_drafts(api, monkeypatch):
    monkeypatch.setattr(drafts, "MAX_OPEN_DRAFTS", 2)
    first = api.draft("alice", "debian", "1")
    api.draft("alice", "debian", "2")
    assert api.call("POST", "drafts", json=NAMES).status_code == 409
    assert api.call("DELETE", f"drafts/{first}").status_code == 204
    assert api.call("POST", "drafts", json=NAMES).status_code == 201


def test_missing_keeps_the_order_and_tells_each_once(api):
    draft = api.draft("alice", "debian", "1.0")
    digests = [digest_of(str(number).encode()) for number in range(2000)]
    assert api.missing(draft, [*reversed(digests), *digests]) == list(reversed(digests))


@pytest.mark.parametrize("body", [b"x", bytes(32), bytes(31), b"\x01" * 33])
def test_what_is_no_list_of_digests_is_refused(api, body):
    draft = api.draft("alice", "debian", "1.0")
    answer = api.call("POST", f"drafts/{draft}/missing", content=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "RequestRefusedError")


def test_a_longer_list_of_digests_is_refused_unread(api):
    draft = api.draft("alice", "debian", "1.0")
    answer = api.call("POST", f"drafts/{draft}/missing", content=b"\x01" * 32 * 65_537)
    assert answer.status_code == 413


def test_a_manifest_must_be_the_drafts_own(api, alice):
    draft = api.draft("alice", "debian", "1.0")
    disk = alice.build("ubuntu", [block("a")])
    for raw in (disk.raw, disk.raw + b" ", b"{}", b"x" * 1000, disk.raw.replace(b"oscirc-manifest-1", b"other")):
        answer = api.call("PUT", f"drafts/{draft}/manifest", content=raw)
        assert (answer.status_code, answer.json()["type"]) == (422, "DocumentRefusedError"), raw
    other_size = api.draft("alice", "ubuntu", "1.0", 2 * BLOCK)
    assert api.call("PUT", f"drafts/{other_size}/manifest", content=disk.raw).status_code == 422
    assert api.call("PUT", f"drafts/{draft}/manifest", content=b" " * 65_537).status_code == 413


def test_drafts_expire_with_their_leases_a_week_after_their_last_use(world, installation, api, alice):
    disk = alice.build("debian", [block("a")])
    used = api.draft("alice", "debian", "1.0")
    api.upload(used, disk.records)
    idle = api.draft("alice", "debian", "2.0")
    world.clock.advance(6 * DAY_S)
    api.missing(used, [disk.blocks[0].digest])
    world.clock.advance(2 * DAY_S)
    assert drafts.expire(installation) == 1
    assert api.call("GET", f"drafts/{idle}").status_code == 404
    assert api.call("GET", f"drafts/{used}").status_code == 200
    world.clock.advance(7 * DAY_S)
    assert drafts.expire(installation) == 1
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Lease)) == 0
        assert session.scalar(select(func.count()).select_from(Draft)) == 0


def test_a_drafts_leases_end_with_the_first_collection_after_its_release(installation, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Lease)) == 2
    collect(installation)
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Lease)) == 0
