"""Events say what changed for readers; the audit trail who did it, to administrators only."""

import pytest

from oscirc_blockstore.image_index import Yank

from .server_world import block
from .test_app import is_problem

DATE = "2027-01-16T08:00:00Z"


@pytest.fixture
def life(api, alice):
    """A version released, yanked, restored; another one released; the first deleted; then the image."""
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("1")])).status_code == 200

    def change(edit):
        indexes = {"debian": edit(alice.indexes["debian"])}
        assert api.call("PUT", "publishers/alice/role", json=alice.offer(indexes)).status_code == 200
        alice.took_force(indexes)

    change(lambda index: index.with_yank("1.0", Yank("broken", DATE, security=True)))
    change(lambda index: index.with_yank("1.0", None))
    assert api.publish(alice, "debian", "2.0", alice.build("debian", [block("2")])).status_code == 200
    change(lambda index: index.without_versions(["1.0"], date=DATE, why="old"))
    change(lambda index: index.without_all(date=DATE))


def events(http, **params):
    answer = http.get("/api/v1/events", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_life_is_told_in_the_order_in_which_it_happened(http, life):
    found = events(http)["events"]
    assert [(each["kind"], each["subject"]) for each in found if each["image"]] == [
        ("image.listed", ""),
        ("version.released", "1.0"),
        ("channel.moved", "stable"),
        ("version.yanked", "1.0"),
        ("version.restored", "1.0"),
        ("version.released", "2.0"),
        ("channel.moved", "stable"),
        ("version.deleted", "1.0"),
        ("version.deleted", "2.0"),
        ("channel.removed", "stable"),
        ("image.closed", ""),
    ]
    assert found[0]["kind"] == "publisher.added"
    assert [each["detail"] for each in found if each["kind"] == "version.yanked"] == [
        {"why": "broken", "security": True}
    ]


def test_whoever_follows_misses_nothing_and_sees_nothing_twice(http, life):
    everything = [each["id"] for each in events(http)["events"]]
    seen, after = [], ""
    while after is not None:
        page = events(http, limit=3, after=after)
        seen += [each["id"] for each in page["events"]]
        after = page["next"]
    assert seen == everything
    assert events(http, after=everything[-1]) == {"events": [], "next": None, "last": None}
    newest = events(http, order="newest", limit=2)
    assert [each["id"] for each in newest["events"]] == everything[:-3:-1]
    assert events(http, order="newest", after=newest["next"])["events"][0]["id"] == everything[-3]


def test_events_are_selected_by_kind_and_image(http, life):
    assert len(events(http, kind="version.released")["events"]) == 2
    assert events(http, image="other")["events"] == []
    assert {each["publisher"] for each in events(http, publisher="alice")["events"]} == {"alice"}
    is_problem(http.get("/api/v1/events?kind=nothing"), 422)
    is_problem(http.get("/api/v1/events?after=x"), 400)
    is_problem(http.get(f"/api/v1/events?after={1 << 63}"), 400)


def test_a_role_that_names_an_image_no_more_unlists_it(http, api, alice, life):
    assert api.call("PUT", "publishers/alice/role", json=alice.offer({})).status_code == 200
    assert events(http, order="newest", limit=1)["events"][0]["kind"] == "image.unlisted"


def test_a_publisher_that_goes_is_told(world, http, life):
    world.administration.remove_publisher("alice", world.keys, "a passphrase for tests")
    kinds = [each["kind"] for each in events(http, order="newest", limit=2)["events"]]
    assert kinds[0] == "publisher.removed"


def test_the_audit_says_who_did_what_to_administrators_alone(world, http, api, admin, life):
    page = admin.call("GET", "audit?limit=2").json()
    assert [each["action"] for each in page["entries"]] == ["role.update", "role.update"]
    older = admin.call("GET", f"audit?after={page['next']}&action=release").json()["entries"]
    assert [each["subject"] for each in older] == ["alice/debian@2.0", "alice/debian@1.0"]
    assert admin.call("GET", f"audit?actor={older[0]['actor']}&subject=alice/debian@1").json()["entries"] == older[1:]
    assert admin.call("GET", f"audit?since={int(world.clock()) + 1}").json()["entries"] == []
    assert len(admin.call("GET", f"audit?until={int(world.clock()) + 1}").json()["entries"]) > 5
    is_problem(api.call("GET", "audit"), 403)
    is_problem(http.get("/api/v1/audit"), 401)
