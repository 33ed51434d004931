"""Tokens: scoped, expiring, revocable, stored as hashes only."""

import pytest
from sqlalchemy import select

from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_server.errors import UnauthenticatedError
from oscirc_server.models import AuditRow, Token
from oscirc_server.services import tokens

from .server_world import Api


def create(admin, **body):
    return admin.call("POST", "tokens", json={"name": "ci", "scopes": ["publish:alice"], **body})


def test_a_token_is_shown_once_and_stored_as_a_hash(world, installation, admin):
    made = create(admin).json()
    assert made["token"].startswith("oscirc_")
    assert len(made["token"]) == len("oscirc_") + 43
    listed = admin.call("GET", "tokens").json()["tokens"]
    assert made["id"] in [token["id"] for token in listed]
    assert made["token"] not in str(listed)
    with installation.database.read() as session:
        assert all(made["token"].encode() not in row.secret_hash for row in session.scalars(select(Token)))
    assert made["token"].encode() not in (world.data / "oscirc.db").read_bytes()


def test_a_token_does_what_its_scope_says_and_nothing_else(world, http, admin, alice):
    publisher = Api(http, create(admin).json()["token"])
    names = {"publisher": "alice", "image": "debian", "version": "1", "block_size": 65536}
    assert publisher.call("POST", "drafts", json=names).status_code == 201
    for method, path in (
        ("GET", "tokens"),
        ("POST", "tokens"),
        ("DELETE", "tokens/x"),
        ("PUT", "roles/targets"),
        ("PUT", "roles/root"),
        ("PUT", "documents/repository.json"),
    ):
        answer = publisher.call(method, path, content=b"{}")
        assert (answer.status_code, answer.json()["type"]) == (403, "ScopeError"), path


def test_an_expired_or_revoked_token_opens_nothing(world, http, admin):
    made = create(admin, lifetime_s=60).json()
    token = Api(http, made["token"])
    assert token.call("GET", "drafts/x").status_code == 404
    world.clock.advance(60)
    answer = token.call("GET", "drafts/x")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="oscirc"')
    endless = create(admin).json()
    assert admin.call("DELETE", f"tokens/{endless['id']}").status_code == 204
    assert admin.call("DELETE", f"tokens/{endless['id']}").status_code == 204
    assert Api(http, endless["token"]).call("GET", "drafts/x").status_code == 401
    assert admin.call("DELETE", "tokens/unknown").status_code == 404


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer oscirc_nobody", "bearer " + "x" * 500, "oscirc_x"]
)
def test_what_is_no_known_token_is_refused(http, header):
    answer = http.get("/api/v1/tokens", headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer.json()["type"]) == (401, "UnauthenticatedError")


def test_the_last_use_is_recorded_to_the_minute(world, installation, http, admin):
    made = create(admin).json()
    token = Api(http, made["token"])

    def last_used():
        return next(t["last_used"] for t in admin.call("GET", "tokens").json()["tokens"] if t["id"] == made["id"])

    assert last_used() is None
    token.call("GET", "drafts/x")
    assert last_used() == "2027-01-15T08:00:00Z"
    world.clock.advance(30)
    token.call("GET", "drafts/x")
    assert last_used() == "2027-01-15T08:00:00Z"
    world.clock.advance(60)
    token.call("GET", "drafts/x")
    assert last_used() == "2027-01-15T08:01:30Z"


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["publish:"]},
        {"scopes": ["publish:*"]},
        {"scopes": ["publish:?lice"]},
        {"scopes": ["admin"] * 101},
        {"name": "x" * 64},
        {"name": "\u001b[2J"},
        {"lifetime_s": 0},
        {"lifetime_s": 10**12},
    ],
)
def test_tokens_with_odd_scopes_names_or_lifetimes_are_not_made(admin, body):
    assert create(admin, **body).status_code in (400, 422)


def test_changes_of_authority_are_audited(installation, admin):
    made = create(admin).json()
    admin.call("DELETE", f"tokens/{made['id']}")
    with installation.database.read() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    assert [(row.action, row.subject) for row in rows][-2:] == [
        ("token.create", made["id"]),
        ("token.revoke", made["id"]),
    ]
    assert made["token"] not in "".join(row.detail for row in rows)


def test_the_service_refuses_as_the_api_does(installation):
    with pytest.raises(UnauthenticatedError):
        tokens.authenticate(installation, "oscirc_x")
    with pytest.raises(NotFoundError):
        tokens.revoke(installation, "x", actor="test")
    with pytest.raises(UsageError):
        tokens.create(installation, ["publish:alice", "everything"], "x", None, actor="test")
