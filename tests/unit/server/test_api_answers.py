"""What every answer of the API has: validators, HEAD, words for caches, media types, methods."""

import pytest

from oscirc_server.api.answers import matches
from oscirc_server.api.media import accepts

from .server_world import block
from .test_app import is_problem


@pytest.fixture
def published(api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200


def test_a_read_has_a_validator_and_is_answered_304_while_it_holds(http, published):
    first = http.get("/api/v1/images")
    tag = first.headers["etag"]
    again = http.get("/api/v1/images", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in again.headers
    assert again.headers["cache-control"] == "no-cache"
    assert http.get("/api/v1/images", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_validator_changes_with_the_answer(http, api, alice, published):
    tag = http.get("/api/v1/images").headers["etag"]
    assert api.publish(alice, "fedora", "1.0", alice.build("fedora", [block("b")])).status_code == 200
    answer = http.get("/api/v1/images", headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


@pytest.mark.parametrize("path", ["images", "images/alice/debian", "publishers", "health/live", "openapi.json"])
def test_head_is_get_without_the_body(http, published, path):
    whole, head = http.get(f"/api/v1/{path}"), http.head(f"/api/v1/{path}")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers[name] == whole.headers[name]


def test_head_of_what_is_not_there_is_refused_as_get_is(http):
    answer = http.head("/api/v1/images/alice/nothing")
    assert (answer.status_code, answer.content) == (404, b"")
    assert http.head("/api/v1/drafts/x/release").status_code == 405


def test_what_a_token_showed_and_what_was_refused_is_not_stored(http, admin):
    assert admin.call("GET", "images").headers["cache-control"] == "no-store"
    assert http.get("/api/v1/images").headers["cache-control"] == "no-cache"
    assert http.get("/api/v1/images/alice/nothing").headers["cache-control"] == "no-store"
    assert http.post("/api/v1/drafts").headers["cache-control"] == "no-store"


def test_a_wrong_method_names_all_that_the_path_takes(http):
    answer = http.patch("/api/v1/drafts/x")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("header", ["application/json", "*/*", "application/*;q=0.5", "text/html, */*;q=0.1", ""])
def test_an_accept_that_allows_json_is_answered(http, header):
    assert http.get("/api/v1/images", headers={"Accept": header}).status_code == 200


@pytest.mark.parametrize("header", ["text/html", "image/*", "application/json;q=0, text/html", "*/*;q=0"])
def test_an_accept_that_allows_no_answer_is_refused(http, header):
    assert is_problem(http.get("/api/v1/images", headers={"Accept": header}), 406)["type"] == "NotAcceptableError"


def test_the_most_specific_range_decides():
    assert not accepts("*/*, application/json;q=0.0", ["application/json"])
    assert accepts("*/*;q=0, application/json", ["application/json"])
    assert accepts("application/*;q=0, text/csv", ["application/json", "text/csv"])


def test_a_body_of_another_type_is_refused_and_one_of_none_taken(admin):
    asked = {"content": b'{"name": "x", "scopes": ["publish:alice"]}'}
    answer = admin.call("POST", "tokens", headers={"Content-Type": "application/x-www-form-urlencoded"}, **asked)
    assert is_problem(answer, 415)["type"] == "UnsupportedMediaTypeError"
    assert admin.call("POST", "tokens", headers={"Content-Type": "application/json; charset=utf-8"}, **asked).is_success
    assert admin.call("POST", "tokens", **asked).status_code == 201


@pytest.mark.parametrize(
    ("header", "etag", "fits"),
    [
        ('"a"', '"a"', True),
        ('W/"a"', '"a"', True),
        ('"b" , "a"', 'W/"a"', True),
        ("*", '"a"', True),
        ("*", "", False),
        ("", '"a"', False),
        ('"b"', '"a"', False),
    ],
)
def test_validators_are_compared_weakly(header, etag, fits):
    assert matches(header, etag) is fits
