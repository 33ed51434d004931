"""Users, robots and members: what they may do, and when they may no more."""

import pytest
from sqlalchemy import select

from oscirc_server.database import Database
from oscirc_server.models import Account, AuditRow
from oscirc_server.services import accounts, passwords, tokens

from .server_world import Api

PASSWORD = "correct horse battery"
NAMES = {"publisher": "alice", "image": "debian", "version": "1", "block_size": 65536}


@pytest.fixture
def user(admin, http, installation):
    """Makes a user with a role at alice, and a token of it; returns the API as that token sees it."""

    def make(name, role=None, scopes=("publish:alice",)):
        assert admin.call("POST", "users", json={"name": name}).status_code == 201
        if role is not None:
            answer = admin.call("PUT", f"publishers/alice/members/{name}", json={"role": role})
            assert answer.status_code == 204, answer.text
        _, token = tokens.create(installation, scopes, "a test", None, actor="test", account=name)
        return Api(http, token)

    return make


def test_a_users_password_is_stored_as_argon2id_only(world, installation, admin):
    made = admin.call("POST", "users", json={"name": "bea", "password": PASSWORD})
    assert made.status_code == 201
    assert made.json() == {
        "name": "bea",
        "publisher": None,
        "admin": False,
        "password": True,
        "roles": {},
        "created": "2027-01-15T08:00:00Z",
        "disabled": None,
    }
    with installation.database.read() as session:
        stored = session.get(Account, "bea").password_hash
    assert stored.startswith("$argon2id$")
    assert passwords.matches(stored, PASSWORD)
    assert not passwords.matches(stored, PASSWORD + "!")
    assert not passwords.matches(None, "the password of nobody")
    assert not passwords.matches("no hash", PASSWORD)
    with installation.database.read() as session:
        assert PASSWORD not in "".join(row.detail for row in session.scalars(select(AuditRow)))


@pytest.mark.parametrize("password", ["short", "x" * 257])
def test_passwords_that_are_too_short_or_too_long_are_refused(admin, password):
    assert admin.call("POST", "users", json={"name": "bea", "password": password}).status_code == 400


@pytest.mark.parametrize("name", ["", "Bea", "a/b", "../x", "?", "b" * 64])
def test_odd_names_are_refused(admin, name):
    assert admin.call("POST", "users", json={"name": name}).status_code == 400
    assert admin.call("POST", "publishers/alice/robots", json={"name": name}).status_code == 400


def test_a_name_is_never_used_twice(admin):
    assert admin.call("POST", "users", json={"name": "bea"}).status_code == 201
    assert admin.call("PATCH", "users/bea", json={"disabled": True}).status_code == 200
    assert admin.call("POST", "users", json={"name": "bea"}).status_code == 409


@pytest.mark.parametrize(
    ("role", "may"),
    [(None, 403), ("reader", 403), ("publisher", 201), ("owner", 201)],
)
def test_a_member_may_do_what_its_role_says(user, role, may):
    assert user("bea", role).call("POST", "drafts", json=NAMES).status_code == may


def test_whoever_is_taken_out_of_a_publisher_cannot_publish_there_from_then_on(admin, user):
    bea = user("bea", "publisher")
    assert bea.call("POST", "drafts", json=NAMES).status_code == 201
    assert admin.call("DELETE", "publishers/alice/members/bea").status_code == 204
    assert bea.call("POST", "drafts", json=NAMES).status_code == 403
    assert admin.call("DELETE", "publishers/alice/members/bea").status_code == 404


def test_a_disabled_account_can_do_nothing_until_it_is_enabled(admin, user):
    bea = user("bea", "owner", ["manage:alice"])
    assert bea.call("GET", "whoami").json() | {"token": ""} == {
        "account": "bea",
        "token": "",
        "scopes": ["manage:alice"],
    }
    for disabled, status in ((True, 401), (False, 200)):
        assert admin.call("PATCH", "users/bea", json={"disabled": disabled}).status_code == 200
        assert bea.call("GET", "whoami").status_code == status


def test_an_owner_looks_after_members_and_robots_of_his_publisher_alone(world, admin, user, http):
    world.add_publisher("bob")
    owner = user("bea", "owner", ["manage:alice"])
    assert admin.call("POST", "users", json={"name": "cleo"}).status_code == 201
    assert owner.call("PUT", "publishers/alice/members/cleo", json={"role": "reader"}).status_code == 204
    assert owner.call("GET", "publishers/alice/members").json() == {"members": {"bea": "owner", "cleo": "reader"}}
    assert owner.call("POST", "publishers/alice/robots", json={"name": "ci"}).status_code == 201
    for method, path, body in (
        ("PUT", "publishers/bob/members/cleo", {"role": "owner"}),
        ("POST", "publishers/bob/robots", {"name": "ci"}),
        ("GET", "publishers/bob/members", None),
        ("PATCH", "publishers/bob/robots/ci", {"disabled": True}),
        ("DELETE", "publishers/bob/members/cleo", None),
        ("PATCH", "users/bea", {"admin": True}),
        ("POST", "users", {"name": "mallory", "admin": True}),
    ):
        assert owner.call(method, path, json=body).status_code == 403, path


def test_a_robot_publishes_for_its_publisher_with_tokens_that_its_owner_makes(world, admin, user, http):
    owner = user("bea", "owner", ["manage:alice"])
    assert owner.call("POST", "publishers/alice/robots", json={"name": "ci"}).json()["name"] == "alice/ci"
    wanted = {"name": "nightly", "scopes": ["publish:alice"], "account": "alice/ci", "lifetime_s": 3600}
    made = owner.call("POST", "tokens", json=wanted)
    assert made.status_code == 201, made.text
    robot = Api(http, made.json()["token"])
    assert robot.call("POST", "drafts", json=NAMES).status_code == 201
    assert made.json()["id"] in [each["id"] for each in owner.call("GET", "tokens").json()["tokens"]]
    assert owner.call("PATCH", "publishers/alice/robots/ci", json={"disabled": True}).status_code == 200
    assert robot.call("POST", "drafts", json=NAMES).status_code == 401
    assert owner.call("DELETE", f"tokens/{made.json()['id']}").status_code == 204


def test_a_token_is_made_only_for_what_its_maker_and_its_account_may_do(world, admin, user):
    world.add_publisher("bob")
    owner = user("bea", "owner", ["manage:alice"])
    assert owner.call("POST", "publishers/alice/robots", json={"name": "ci"}).status_code == 201
    assert admin.call("POST", "publishers/bob/robots", json={"name": "ci"}).status_code == 201
    for wanted in (
        {"scopes": ["admin"]},
        {"scopes": ["publish:bob"]},
        {"scopes": ["publish:alice"], "account": "bob/ci"},
        {"scopes": ["manage:alice"], "account": "alice/ci"},
        {"scopes": ["read:alice", "publish:bob"], "account": "alice/ci"},
    ):
        answer = owner.call("POST", "tokens", json={"name": "x", **wanted})
        assert (answer.status_code, answer.json()["type"]) == (403, "ScopeError"), wanted
    assert owner.call("POST", "tokens", json={"name": "x", "scopes": ["publish:alice"], "account": "nobody"}).status_code == 404  # fmt: skip


def test_a_token_that_only_publishes_makes_no_others_and_can_end_itself(user):
    bea = user("bea", "owner")
    assert bea.call("POST", "tokens", json={"name": "x", "scopes": ["publish:alice"]}).status_code == 403
    own = bea.call("GET", "whoami").json()["token"]
    assert [each["id"] for each in bea.call("GET", "tokens").json()["tokens"]] == [own]
    assert bea.call("DELETE", f"tokens/{own}").status_code == 204
    assert bea.call("GET", "whoami").status_code == 401


def test_a_token_that_was_made_for_more_than_the_account_may_do_does_less(user):
    bea = user("bea", "reader", ["admin", "publish:alice", "read:alice"])
    assert bea.call("GET", "whoami").json()["scopes"] == ["read:alice"]


def test_robots_and_members_belong_to_publishers_that_there_are(admin):
    admin.call("POST", "users", json={"name": "bea"})
    assert admin.call("POST", "publishers/nobody/robots", json={"name": "ci"}).status_code == 404
    assert admin.call("PUT", "publishers/nobody/members/bea", json={"role": "owner"}).status_code == 404
    assert admin.call("PUT", "publishers/alice/members/nobody", json={"role": "owner"}).status_code == 404
    assert admin.call("PUT", "publishers/alice/members/bea", json={"role": "king"}).status_code == 422


def test_changes_of_accounts_are_audited_with_who_made_them(installation, admin):
    admin.call("POST", "users", json={"name": "bea", "password": PASSWORD})
    admin.call("PUT", "publishers/alice/members/bea", json={"role": "owner"})
    admin.call("PATCH", "users/bea", json={"admin": True, "password": None})
    admin.call("POST", "publishers/alice/robots", json={"name": "ci"})
    own = admin.call("GET", "whoami").json()["token"]
    with installation.database.read() as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.actor == own).order_by(AuditRow.id)).all()
    assert [(row.action, row.subject) for row in rows] == [
        ("user.create", "bea"),
        ("member.set", "alice/bea"),
        ("user.password", "bea"),
        ("user.admin", "bea"),
        ("robot.create", "alice/ci"),
    ]


def test_users_are_listed_with_what_they_may_do(admin):
    admin.call("POST", "users", json={"name": "bea"})
    admin.call("PUT", "publishers/alice/members/bea", json={"role": "owner"})
    (listed,) = admin.call("GET", "users").json()["users"]
    assert (listed["name"], listed["roles"]) == ("bea", {"alice": "owner"})
    assert admin.call("GET", "users/bea").json() == listed
    assert admin.call("GET", "users/nobody").status_code == 404


def test_the_migration_and_the_queries_work_on_postgresql(postgresql):
    database = Database(postgresql.url(postgresql.create()))
    try:
        database.migrate()
        with database.write() as session:
            session.add(Account(name="bea", is_admin=False, created_s=1))
        with database.read() as session:
            assert accounts.authority_of(session, "bea") == frozenset()
            assert [each.name for each in accounts.users(session, after="", limit=9)[0]] == ["bea"]
    finally:
        database.close()
