"""Quotas: counted as blocks come, refused before they come, right after any way that a draft can end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, func, select, update

from oscirc_blockstore.errors import BusyError, NotFoundError, QuotaExceededError
from oscirc_blockstore.table import NODE_SIZE
from oscirc_server import repository
from oscirc_server.database import Database
from oscirc_server.models import Holding, PublisherUsage, Quota
from oscirc_server.resigning import upkeep
from oscirc_server.services import drafts, quotas, recounting

from .server_world import BLOCK, Api, block

NODES = NODE_SIZE  # the small disks here have one node


@pytest.fixture
def keeps(installation):
    """What alice keeps: (unique, logical); and that counting from the tables gives the same."""

    def ask(publisher="alice"):
        with installation.database.read() as session:
            found = quotas.usage(session, publisher)
            open_rows = session.scalar(
                select(func.count())
                .select_from(Holding)
                .where(Holding.publisher == publisher, Holding.draft_id.is_not(None))
            )
        counted = recounting.recount(installation, publisher, repair=False)
        if not found.counting:
            assert not counted.drifted, (counted, open_rows)
        return found.unique_bytes, found.logical_bytes

    return ask


def limit(admin, unique=None, logical=None, publisher="alice"):
    answer = admin.call("PUT", f"publishers/{publisher}/quota", json={"unique_bytes": unique, "logical_bytes": logical})
    assert answer.status_code == 204, answer.text


def refused(answer, kind):
    assert answer.status_code == 413, answer.text
    problem = answer.json()
    assert (problem["type"], problem["quota"]) == ("QuotaExceededError", kind)
    return problem["limit_bytes"], problem["used_bytes"], problem["new_bytes"]


def ask(api, draft, digests):
    return api.call("POST", f"drafts/{draft}/missing", content=b"".join(digests))


def test_distinct_blocks_count_once_and_versions_each(api, alice, keeps):
    first = alice.build("debian", [block("a"), block("b"), None, block("a")])
    assert api.publish(alice, "debian", "1", first).status_code == 200
    assert keeps() == (2 * BLOCK + NODES, 3 * BLOCK)
    second = alice.build("debian", [block("a"), block("b"), block("c"), None])
    assert api.publish(alice, "debian", "2", second).status_code == 200
    assert keeps() == (3 * BLOCK + 2 * NODES, 6 * BLOCK)


def test_what_two_publishers_share_counts_for_each(world, http, api, alice, keeps):
    bob = world.add_publisher("bob")
    disk = [block("a"), block("b")]
    assert api.publish(alice, "debian", "1", alice.build("debian", disk)).status_code == 200
    of_bob = Api(http, world.token("publish:bob"))
    assert of_bob.publish(bob, "debian", "1", bob.build("debian", disk)).status_code == 200
    assert keeps("alice") == keeps("bob") == (2 * BLOCK + NODES, 2 * BLOCK)


def test_what_would_be_too_much_is_refused_with_the_numbers_before_it_is_sent(installation, admin, api, alice, keeps):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    used = BLOCK + NODES
    limit(admin, unique=used + 2 * BLOCK)
    draft = api.draft("alice", "debian", "2")
    digests = [record.digest for record in alice.build("debian", [block("b"), block("c"), block("d")]).blocks]
    assert refused(ask(api, draft, digests), "unique") == (used + 2 * BLOCK, used, 3 * BLOCK)
    assert keeps()[0] == used
    assert ask(api, draft, digests[:2]).status_code == 200
    assert ask(api, draft, digests[:2]).status_code == 200  # asking again costs nothing
    assert refused(ask(api, draft, digests[2:]), "unique") == (used + 2 * BLOCK, used + 2 * BLOCK, BLOCK)


def test_what_the_publisher_keeps_already_may_be_published_again_at_the_limit(admin, api, alice, keeps):
    disk = alice.build("debian", [block("a"), block("b")])
    assert api.publish(alice, "debian", "1", disk).status_code == 200
    limit(admin, unique=keeps()[0])
    assert api.publish(alice, "debian", "1-again", disk).status_code == 200
    assert keeps() == (2 * BLOCK + NODES, 4 * BLOCK)


def test_drafts_side_by_side_cannot_go_beyond_the_limit_together(admin, api, alice):
    limit(admin, unique=3 * BLOCK)
    one, other = api.draft("alice", "debian", "1"), api.draft("alice", "debian", "2")
    blocks = [record.digest for record in alice.build("debian", [block(x) for x in "abcd"]).blocks]
    assert ask(api, one, blocks[:2]).status_code == 200
    assert refused(ask(api, other, blocks[2:]), "unique") == (3 * BLOCK, 2 * BLOCK, 2 * BLOCK)
    assert ask(api, other, blocks[1:3]).status_code == 200  # one of the two is the other draft's already


def test_blocks_that_come_unasked_count_too_and_are_not_released_beyond_the_limit(admin, api, alice, keeps):
    limit(admin, unique=2 * BLOCK)
    disk = alice.build("debian", [block("a"), block("b"), block("c")])
    draft = api.draft("alice", "debian", "1")
    assert api.upload(draft, disk.records).status_code == 200
    assert keeps() == (3 * BLOCK + NODES, 0)
    refused(api.upload(draft, alice.build("debian", [block("d")]).blocks), "unique")
    assert api.call("PUT", f"drafts/{draft}/manifest", content=disk.raw).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1", disk.digest)}
    answer = api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes))
    assert refused(answer, "unique") == (2 * BLOCK, 0, 3 * BLOCK + NODES)
    limit(admin, unique=3 * BLOCK + NODES)
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
    assert keeps() == (3 * BLOCK + NODES, 3 * BLOCK)


@pytest.mark.parametrize("end", ["discard", "expire"])
def test_a_draft_that_ends_gives_back_what_no_version_names(world, installation, api, alice, keeps, end):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    draft = api.draft("alice", "debian", "2")
    disk = alice.build("debian", [block("a"), block("b")])
    assert ask(api, draft, [record.digest for record in disk.records]).status_code == 200
    assert api.upload(draft, disk.records).status_code == 200
    assert keeps()[0] == 2 * BLOCK + 2 * NODES
    if end == "discard":
        assert api.call("DELETE", f"drafts/{draft}").status_code == 204
    else:
        world.clock.advance(8 * 86_400)
        assert drafts.expire(installation) == 1
    assert keeps()[0] == BLOCK + NODES


def test_what_a_released_draft_asked_about_in_vain_counts_no_more(api, alice, keeps):
    draft = api.draft("alice", "debian", "1")
    ask(api, draft, [record.digest for record in alice.build("debian", [block("x"), block("y")]).blocks])
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    assert keeps() == (BLOCK + NODES, BLOCK)


def test_logical_bytes_are_limited_at_negotiation_once_they_are_used_up_and_at_release(admin, api, alice, keeps):
    limit(admin, logical=3 * BLOCK)
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a"), block("a")])).status_code == 200
    disk = alice.build("debian", [block("a"), block("b")])
    assert refused(api.publish(alice, "debian", "2", disk), "logical") == (3 * BLOCK, 2 * BLOCK, 2 * BLOCK)
    assert keeps()[1] == 2 * BLOCK
    limit(admin, logical=2 * BLOCK)
    draft = api.draft("alice", "debian", "3")
    refused(ask(api, draft, [disk.blocks[0].digest]), "logical")


def test_deleted_versions_are_counted_no_more_after_the_next_round_of_upkeep(installation, admin, api, alice, keeps):
    first, second = (alice.build("debian", [block("a"), block(name)]) for name in "bc")
    assert api.publish(alice, "debian", "1", first).status_code == 200
    assert api.publish(alice, "debian", "2", second).status_code == 200
    index = alice.indexes["debian"].without_versions(["1"], date="2027-01-15T08:00:00Z", why="old")
    answer = api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index}))
    assert answer.status_code == 200, answer.text
    shown = admin.call("GET", "publishers/alice/quota").json()
    assert (shown["logical_bytes"], shown["counting"]) == (2 * BLOCK, True)
    upkeep(installation)
    assert keeps() == (2 * BLOCK + NODES, 2 * BLOCK)


def test_everybody_without_limits_of_his_own_has_the_default_ones(admin, api, alice):
    assert admin.call("PUT", "quotas/default", json={"unique_bytes": 0}).status_code == 204
    draft = api.draft("alice", "debian", "1")
    digests = [record.digest for record in alice.build("debian", [block("a")]).blocks]
    refused(ask(api, draft, digests), "unique")
    limit(admin)
    assert ask(api, draft, digests).status_code == 200
    assert admin.call("DELETE", "publishers/alice/quota").status_code == 204
    assert admin.call("GET", "quotas").json() == {
        "publishers": [
            {
                "publisher": "alice",
                "unique_bytes": BLOCK,
                "logical_bytes": 0,
                "limits": {"unique_bytes": 0, "logical_bytes": None},
                "counting": False,
            }
        ],
        "default": {"unique_bytes": 0, "logical_bytes": None},
        "next": None,
    }


def test_a_publisher_sees_its_own_usage_and_sets_nothing(world, http, api):
    assert api.call("GET", "publishers/alice/quota").json()["unique_bytes"] == 0
    assert api.call("GET", "publishers/bob/quota").status_code == 403
    assert api.call("GET", "quotas").status_code == 403
    for method, path in (
        ("PUT", "publishers/alice/quota"),
        ("PUT", "quotas/default"),
        ("DELETE", "publishers/alice/quota"),
    ):
        assert api.call(method, path, json={"unique_bytes": None}).status_code == 403
    assert Api(http, world.token("read:alice")).call("GET", "publishers/alice/quota").status_code == 200


@pytest.mark.parametrize("value", [-1, (1 << 60) + 1, "5G", 1.5])
def test_odd_limits_are_refused(admin, value):
    assert admin.call("PUT", "publishers/alice/quota", json={"unique_bytes": value}).status_code == 422


def test_drift_is_found_and_repaired(world, installation, api, alice):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a"), block("b")])).status_code == 200
    with installation.database.write() as session:
        digest = session.scalars(select(Holding.digest).limit(1)).one()
        session.execute(delete(Holding).where(Holding.digest == digest))
        session.add(Holding(publisher="alice", digest=b"x" * 32, size=5))
        session.execute(update(PublisherUsage).values(unique_bytes=17))
    (found,) = world.administration.check_quotas(None, repair=False)
    assert found.drifted
    assert (found.recorded_unique, found.counted_unique) == (17, 2 * BLOCK + NODES)
    assert (found.lacking_rows, found.surplus_rows) == (1, 1)
    world.administration.check_quotas("alice", repair=True)
    (found,) = world.administration.check_quotas("alice", repair=False)
    assert not found.drifted
    with pytest.raises(NotFoundError):
        world.administration.check_quotas("nobody", repair=False)


def test_a_publisher_who_was_never_counted_is_counted_by_the_upkeep(installation, api, alice, keeps):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    with installation.database.write() as session:  # as after the migration
        session.execute(delete(Holding))
        session.execute(delete(PublisherUsage))
    upkeep(installation)
    assert keeps() == (BLOCK + NODES, BLOCK)


def test_a_publisher_that_releases_all_the_time_is_counted_another_time(installation, api, alice, monkeypatch):
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
    versions = iter(range(1000))
    monkeypatch.setattr(repository, "current_version", lambda _session, _role: next(versions))
    with pytest.raises(BusyError):
        recounting.recount(installation, "alice", repair=True)


def test_on_postgresql_reservations_at_the_same_moment_stay_within_the_limit(postgresql):
    database = Database(postgresql.url(postgresql.create()))
    try:
        database.migrate()
        with database.write() as session:
            session.add(Quota(publisher="alice", unique_limit=5 * BLOCK))
        together = threading.Barrier(8)

        def reserve(number):
            sizes = {bytes([number, each]) * 16: BLOCK for each in range(2)}
            together.wait(30)
            try:
                with database.write(shared=True) as session:
                    quotas.reserve(session, "alice", f"draft {number}", sizes)
            except QuotaExceededError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(reserve, range(8))) == [False] * 6 + [True] * 2
        with database.read() as session:
            assert quotas.usage(session, "alice").unique_bytes == 4 * BLOCK
        with database.write() as session:
            quotas.abandon(session, {f"draft {number}": "alice" for number in range(8)})
        with database.read() as session:
            assert quotas.usage(session, "alice").unique_bytes == 0
            assert session.scalar(select(func.count()).select_from(Holding)) == 0
    finally:
        database.close()
