"""Tokens: scoped, expiring, revocable, stored as hashes only."""

import base64
import hashlib

import pytest
from sqlalchemy import select

from oscirc_blockstore import token_text
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_server.errors import UnauthenticatedError
from oscirc_server.models import AuditRow, Base, Token
from oscirc_server.services import guessing, tokens

from .in_process import client_at
from .server_world import Api


def create(admin, **body):
    return admin.call("POST", "tokens", json={"name": "ci", "scopes": ["publish:alice"], **body})


def _all_rows(installation):
    with installation.database.read() as session:
        tables = Base.metadata.sorted_tables
        return "\n".join(str(row) for table in tables for row in session.execute(select(table)))


def test_a_token_is_shown_once_and_stored_as_a_hash(installation, admin):
    made = create(admin).json()
    assert made["token"].startswith("oscirc_")
    assert token_text.FORM.fullmatch(made["token"])
    listed = admin.call("GET", "tokens").json()["tokens"]
    assert made["id"] in [token["id"] for token in listed]
    assert made["token"] not in str(listed)
    with installation.database.read() as session:
        assert all(made["token"].encode() not in row.secret_hash for row in session.scalars(select(Token)))
    assert made["id"] in (kept := _all_rows(installation))
    assert made["token"] not in kept


def test_a_token_does_what_its_scope_says_and_nothing_else(world, http, admin, alice):
    publisher = Api(http, create(admin).json()["token"])
    names = {"publisher": "alice", "image": "debian", "version": "1", "block_size": 65536}
    assert publisher.call("POST", "drafts", json=names).status_code == 201
    for method, path in (
        ("POST", "users"),
        ("GET", "users"),
        ("PUT", "roles/targets"),
        ("PUT", "roles/root"),
        ("PUT", "documents/repository.json"),
    ):
        answer = publisher.call(method, path, content=b"{}")
        assert (answer.status_code, answer.json()["type"]) == (403, "ScopeError"), path
    assert publisher.call("GET", "tokens").json() == {"tokens": [], "next": None}
    assert publisher.call("DELETE", f"tokens/{admin.call('GET', 'whoami').json()['token']}").status_code == 404


def test_a_token_of_the_first_form_without_a_checksum_stays_valid(installation, http):
    old = "oscirc_" + base64.urlsafe_b64encode(bytes(range(200, 232))).decode().rstrip("=")
    with installation.database.write() as session:
        secret_hash = hashlib.sha256(old.encode()).digest()
        session.add(Token(id="old", name="old", secret_hash=secret_hash, scopes="publish:alice", created_s=1))
    assert Api(http, old).call("GET", "whoami").json() == {"account": None, "token": "old", "scopes": ["publish:alice"]}


def test_a_mistyped_token_is_told_without_asking_the_database(http, admin, monkeypatch, installation):
    made = create(admin).json()["token"]
    typo = made[:20] + ("A" if made[20] != "A" else "B") + made[21:]

    def forbidden():
        raise AssertionError("the database was asked")

    answer = Api(http, typo).call("GET", "whoami")
    assert (answer.status_code, answer.json()["type"]) == (401, "UnauthenticatedError")
    assert "mistyped" in answer.json()["detail"]
    monkeypatch.setattr(installation.database, "read", forbidden)
    with pytest.raises(UnauthenticatedError, match="mistyped"):
        tokens.authenticate(installation, typo)


def test_failures_of_a_network_are_slowed_down_and_its_right_tokens_are_not(world, http, admin):
    wrong = Api(http, token_text.from_secret(bytes(32)))
    statuses = [wrong.call("GET", "whoami").status_code for _ in range(guessing.TOKENS_OF_A_NETWORK.burst + 1)]
    assert statuses == [401] * guessing.TOKENS_OF_A_NETWORK.burst + [429]
    assert int(wrong.call("GET", "whoami").headers["retry-after"]) > 0
    assert admin.call("GET", "whoami").status_code == 200
    elsewhere = Api(client_at("192.0.2.9", http), wrong.token)
    assert elsewhere.call("GET", "whoami").status_code == 401
    world.clock.advance(3600)
    assert wrong.call("GET", "whoami").status_code == 401


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
