"""Every call that changes something, out of the OpenAPI document, is refused to whoever may not make it.

What is new in the document is tried without anybody having to think of it; what anybody may send is listed by name.
"""

import json

import pytest
from sqlalchemy import func, select

from oscirc_server.api import application
from oscirc_server.database import table_of
from oscirc_server.models import Base

from .server_world import DAY_S, Api, block
from .test_api_document import OPEN_WRITES
from .test_app import is_problem

DOCUMENT = application.build().openapi()
UNCOUNTED = ("audit", "kept_answers", "facts")  # who was refused, and what the server knows of itself
WRITES = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in ("post", "put", "patch", "delete") and operation["operationId"] not in OPEN_WRITES
}
READS = {
    operation["operationId"]: (path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method == "get" and operation.get("security")
}
OF_ITS_OWN = {"list_drafts", "list_jobs", "list_tokens", "who_am_i"}  # answer everybody, each with what is his


@pytest.fixture
def names(api, alice, admin, world):
    """Path values that exist: a released version with a profile's name, a draft, a token that is not the caller's."""
    disk = alice.build("debian", [block("a")])
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    other = admin.call("POST", "tokens", json={"name": "other", "scopes": ["publish:alice"]}).json()
    return {
        "publisher": "alice",
        "name": "alice",
        "image": "debian",
        "version": "1.0",
        "target": "1.0",
        "kind": "profile",
        "profile": "boot",
        "draft_id": api.draft("alice", "debian", "2.0"),
        "token_id": other["id"],
    }


def request_of(name, names):
    method, path, operation = WRITES[name]
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            value = names.get(parameter["name"], 1 if parameter["schema"].get("type") == "integer" else "somebody")
            path = path.replace("{" + parameter["name"] + "}", str(value))
    params = {
        parameter["name"]: parameter.get("example", "x")
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query" and parameter.get("required")
    }
    options = {"params": params}
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        raw = json.dumps(content["example"]).encode() if "example" in content else b"x" * 32
        options |= {"content": raw, "headers": {"Content-Type": media_type}}
        break
    return method, path.removeprefix("/api/v1/"), options


def state(installation, world):
    """How many rows each table has, and the tree's files: what a refused call must leave as it was."""
    with installation.database.read() as session:
        counts = {
            model.__tablename__: session.scalar(select(func.count()).select_from(table_of(model)))
            for model in Base.__subclasses__()
            if model.__tablename__ not in UNCOUNTED
        }
    return (
        counts,
        sorted(str(path) for path in world.tree.rglob("*")),
        world.tree.joinpath("metadata/timestamp.json").read_bytes(),
    )


@pytest.fixture
def refused_tokens(world, admin):
    """Tokens that no longer, not yet, or never were good for anything."""
    expired = world.token("admin", lifetime_s=60)
    made = admin.call("POST", "tokens", json={"name": "gone", "scopes": ["admin"]}).json()
    assert admin.call("DELETE", f"tokens/{made['id']}").status_code == 204
    world.clock.advance(DAY_S // 24)
    wrong = expired[:-1] + ("a" if expired[-1] != "a" else "b")
    return {"none": None, "garbage": "x", "wrong": wrong, "expired": expired, "revoked": made["token"]}


def test_there_are_calls_to_try():
    assert len(WRITES) > 15
    assert {"release_draft", "put_role", "put_targets", "create_token", "put_accelerator"} <= set(WRITES)


def test_no_call_that_changes_something_is_made_without_a_good_token(names, http, installation, world, refused_tokens):
    before = state(installation, world)
    for name in WRITES:
        method, path, options = request_of(name, names)
        for kind, token in refused_tokens.items():
            world.clock.advance(60)  # whoever fails often has to wait
            answer = Api(http, token).call(method, path, **dict(options))
            assert answer.status_code == 401, (name, kind, answer.text)
            assert is_problem(answer, 401)["type"] == "UnauthenticatedError"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert state(installation, world) == before


def test_no_call_that_changes_something_is_made_with_a_token_for_something_else(names, http, installation, world):
    tokens = {"another publisher's": world.token("publish:bob"), "a reader's": world.token("read:alice")}
    before = state(installation, world)
    for name in WRITES:
        method, path, options = request_of(name, names)
        for kind, token in tokens.items():
            answer = Api(http, token).call(method, path, **dict(options))
            assert answer.status_code in (403, 404), (name, kind, answer.text)
            is_problem(answer, answer.status_code)
    assert state(installation, world) == before


def test_what_only_administrators_may_is_refused_to_a_publisher(names, api, installation, world):
    before = state(installation, world)
    administrators = [
        name for name, (_, path, _) in WRITES.items() if "/roles/" in path or "/documents/" in path or "/users" in path
    ]
    assert {"put_targets", "put_root"} <= set(administrators)
    for name in administrators:
        method, path, options = request_of(name, names)
        assert api.call(method, path, **dict(options)).status_code == 403, name
    assert state(installation, world) == before


@pytest.mark.parametrize("name", READS)
def test_what_is_not_public_is_shown_to_nobody_without_a_token(names, http, world, refused_tokens, name):
    path, operation = READS[name]
    for parameter in operation.get("parameters", []):
        value = names.get(parameter["name"], 1 if parameter["schema"].get("type") == "integer" else "somebody")
        path = path.replace("{" + parameter["name"] + "}", str(value))
    for token in refused_tokens.values():
        world.clock.advance(60)
        assert Api(http, token).call("GET", path.removeprefix("/api/v1/")).status_code == 401
    if name not in OF_ITS_OWN:
        answer = Api(http, world.token("publish:bob")).call("GET", path.removeprefix("/api/v1/"))
        assert answer.status_code in (403, 404)
