"""Idempotency-Key: a call whose answer was lost is not made twice. If-Match: nothing unseen is overwritten."""

import pytest
from sqlalchemy import select

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile
from oscirc_server.models import KeptAnswer, Token
from oscirc_server.services import kept_answers
from oscirc_server.services.kept_answers import Key

from .server_world import DAY_S, block
from .test_app import is_problem

ASKED = {"name": "ci", "scopes": ["publish:alice"]}


def make(admin, key="k", asked=ASKED, path="tokens"):
    return admin.call("POST", path, json=asked, headers={"Idempotency-Key": key})


def count(installation, model):
    with installation.database.read() as session:
        return len(list(session.scalars(select(model))))


def test_the_same_call_again_gets_the_same_answer_and_is_made_once(installation, admin):
    before = count(installation, Token)
    first, second = make(admin), make(admin)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert count(installation, Token) == before + 1


def test_another_key_token_or_route_is_another_call(admin, world, http):
    tokens = {make(admin, key).json()["token"] for key in ("a", "b")}
    other = type(admin)(http, world.token("admin"))
    tokens.add(make(other, "a").json()["token"])
    assert len(tokens) == 3
    draft = {"publisher": "alice", "image": "debian", "version": "1", "block_size": 65536}
    assert make(admin, "a", draft, "drafts").status_code == 201


def test_another_body_under_the_same_key_is_refused(admin):
    make(admin)
    assert is_problem(make(admin, asked=ASKED | {"name": "other"}), 422)["type"] == "KeyReusedError"


def test_while_the_first_call_runs_the_second_is_told(installation, admin):
    key = Key.of(admin.token, admin.call("GET", "whoami").json()["token"], "/api/v1/tokens?", "k")
    assert kept_answers.begin(installation, key) is None
    assert is_problem(make(admin), 409)["type"] == "ConflictError"
    kept_answers.abandon(installation, key)
    assert make(admin).status_code == 201


def test_what_a_crash_left_pending_lapses_and_what_is_old_is_forgotten(installation, admin, world):
    key = Key.of(admin.token, admin.call("GET", "whoami").json()["token"], "/api/v1/tokens?", "k")
    assert kept_answers.begin(installation, key) is None
    world.clock.advance(kept_answers.PENDING_S)
    first = make(admin)
    assert first.status_code == 201
    world.clock.advance(DAY_S)
    assert make(admin).json()["token"] != first.json()["token"]


def test_a_refusal_is_judged_anew(installation, admin):
    assert make(admin, asked={"name": "x", "scopes": ["nonsense"]}).status_code == 400
    assert count(installation, KeptAnswer) == 0
    assert make(admin).status_code == 201


def test_a_copy_of_the_database_shows_no_token(installation, admin):
    text = make(admin).json()["token"]
    with installation.database.read() as session:
        (row,) = session.scalars(select(KeptAnswer))
    assert text.encode() not in row.sealed
    stranger = Key(row.id, row.token_id, bytes(32))
    assert kept_answers._opened(stranger, 201, row.sealed) is None


def test_keys_are_bounded_in_form_and_number(installation, admin, monkeypatch):
    for key in ("", " ", "x" * 201, "a b"):
        is_problem(make(admin, key), 400)
    monkeypatch.setattr(kept_answers, "MAX_KEPT", 3)
    for number in range(5):
        assert make(admin, f"k{number}").status_code == 201
    assert count(installation, KeptAnswer) == 3
    assert "idempotency-replayed" in make(admin, "k4").headers


def test_without_a_good_token_a_key_means_nothing(installation, admin):
    make(admin)
    for token in (None, "oscirc_wrong"):
        is_problem(make(admin.with_token(token)), 401)
    assert count(installation, KeptAnswer) == 1


def test_a_release_whose_answer_was_lost_is_told_again(api, alice):
    disk = alice.build("debian", [block("a")])
    draft = api.stage(alice, "debian", "1.0", disk)
    offer = alice.offer({"debian": alice.index_with("debian", "1.0", disk.digest)})
    first, second = (make(api, "r", offer, f"drafts/{draft}/release") for _ in range(2))
    assert (first.status_code, second.content) == (200, first.content)
    assert second.headers["idempotency-replayed"] == "true"


def test_a_role_is_changed_only_while_the_callers_is_current(http, api, alice):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    offer = alice.offer({"debian": alice.indexes["debian"].with_channel("old", "1.0")})
    tag = http.get("/api/v1/roles/alice").headers["etag"]

    def put(**headers):
        return api.call("PUT", "publishers/alice/role", json=offer, headers=headers)

    assert is_problem(put(**{"If-Match": '"alice.7"'}), 412)["type"] == "PreconditionFailedError"
    is_problem(put(**{"If-None-Match": "*"}), 412)
    assert put(**{"If-Match": f'"x", {tag}'}).status_code == 200


@pytest.mark.usefixtures("no_block_lengths")
def test_an_accelerator_is_replaced_only_as_the_caller_knows_it(api, alice):
    disk = alice.build("debian", [block("a"), block("b")])
    assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    path = "images/alice/debian/versions/1.0/accelerators/profile/boot"
    raws = [Profile(disk.digest, "boot", 1, order).serialise() for order in ((0, 1), (1, 0))]

    def put(raw, **headers):
        sha256 = digest_of(raw).hex()
        return api.call("PUT", path, params={"sha256": sha256}, content=raw, headers=headers)

    assert put(raws[0], **{"If-None-Match": "*"}).status_code == 200
    is_problem(put(raws[1], **{"If-None-Match": "*"}), 412)
    is_problem(put(raws[1], **{"If-Match": f'"{digest_of(raws[1]).hex()}"'}), 412)
    assert put(raws[1], **{"If-Match": f'"{digest_of(raws[0]).hex()}"'}).status_code == 200
    is_problem(api.call("DELETE", path, headers={"If-Match": '"x"'}), 412)
    assert api.call("DELETE", path, headers={"If-Match": f'"{digest_of(raws[1]).hex()}"'}).status_code == 204
