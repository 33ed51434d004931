"""Lists of the API that come in pages: nothing is left out or shown twice, in both databases, while others come."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.errors import UsageError
from oscirc_server.services import pages

PUBLISHERS = ("bob", "carol", "dave", "erin")


@pytest.fixture
def filled(world, admin):
    """Besides alice four publishers with usage, five users, five robots of alice, and some tokens made in one second."""
    for name in PUBLISHERS:
        world.add_publisher(name)
        assert admin.call("PUT", f"publishers/{name}/quota", json={"unique_bytes": 1 << 30}).status_code == 204
        open_draft(admin, name)
    open_draft(admin, "alice")
    for number in range(5):
        assert admin.call("POST", "users", json={"name": f"user-{number}"}).status_code == 201
        assert admin.call("POST", "publishers/alice/robots", json={"name": f"robot-{number}"}).status_code == 201
        token = {"name": f"t{number}", "scopes": ["publish:alice"], "account": f"alice/robot-{number}"}
        assert admin.call("POST", "tokens", json=token).status_code == 201
    return admin


def open_draft(admin, publisher):
    """Something that this publisher keeps: a block that it asked about."""
    names = {"publisher": publisher, "image": "debian", "version": "1", "block_size": 262_144}
    draft = admin.call("POST", "drafts", json=names).json()["id"]
    assert admin.call("POST", f"drafts/{draft}/missing", content=publisher.encode().ljust(32, b"x")).status_code == 200


LISTS = {
    "publishers": ("publishers", "name"),
    "users": ("users", "name"),
    "publishers/alice/robots": ("robots", "name"),
    "tokens": ("tokens", "id"),
    "quotas": ("publishers", "publisher"),
}


def walk(api, path, name, limit):
    """Every page, by the links."""
    found, query = [], f"?limit={limit}"
    while query:
        answer = api.call("GET", path + query)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()[name]) <= limit
        found += answer.json()[name]
        link = re.fullmatch(r'<[a-z]+(\?[^>]+)>; rel="next"', answer.headers.get("Link", ""))
        assert (link is None) == (answer.json()["next"] is None)
        query = link and link[1]
    return found


def test_every_list_is_walked_by_its_links_without_gap_or_repetition(filled):
    for path, (name, key) in LISTS.items():
        whole = filled.call("GET", path).json()
        assert whole["next"] is None
        entries = [each[key] for each in whole[name]]
        assert len(entries) >= 5
        for limit in (1, 2, len(entries)):
            assert [each[key] for each in walk(filled, path, name, limit)] == entries, path
        if key != "id":
            assert entries == sorted(entries)


def test_whoever_comes_between_two_pages_moves_nobody(filled):
    first = filled.call("GET", "users?limit=2").json()
    assert filled.call("POST", "users", json={"name": "aaron"}).status_code == 201
    second = filled.call("GET", f"users?limit=2&after={first['next']}").json()
    assert [each["name"] for each in first["users"] + second["users"]] == [f"user-{number}" for number in range(4)]


def test_a_robots_token_is_on_the_pages_of_who_manages_it_only(filled, api):
    assert api.call("GET", "tokens?limit=1").json() == {"tokens": [], "next": None}
    mine = filled.call("POST", "tokens", json={"name": "m", "scopes": ["manage:alice"]}).json()["token"]
    listed = walk(api.with_token(mine), "tokens", "tokens", 2)
    assert sorted(each["account"] for each in listed) == [f"alice/robot-{number}" for number in range(5)]


@pytest.mark.parametrize("place", ["%00", "%0a", "a%27b", "%F0%9F%99%82", "x" * 201])
def test_what_is_no_place_in_a_list_is_refused(admin, alice, place):
    for path in LISTS:
        assert admin.call("GET", f"{path}?after={place}").status_code in (400, 422), path


@pytest.mark.parametrize("place", ["1", "x-1", "-ab", "9999999999999999-ab"])
def test_a_token_list_goes_on_after_a_moment_only(admin, place):
    assert admin.call("GET", f"tokens?after={place}").status_code == 400


@given(st.lists(st.text("abz-/.", min_size=1, max_size=4), unique=True).map(sorted), st.integers(1, 5))
def test_pages_of_names_put_together_are_the_names(names, limit):
    found, place = [], ""
    while place is not None:
        page, place = pages.of_names(names, place, limit)
        assert len(page) <= limit
        found += page
    assert found == names


@given(st.text(max_size=20))
def test_any_text_is_a_place_or_refused_with_where_to_get_one(text):
    for check in (pages.name_in, pages.moment_in):
        refusal = None
        try:
            check(text)
        except UsageError as error:
            refusal = error
        assert refusal is None or "next" in refusal.hint
