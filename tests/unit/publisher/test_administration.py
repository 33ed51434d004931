from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from oscirc_blockstore import keys
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    NameRefusedError,
    NotFoundError,
    NotServedError,
    RollbackError,
    ServerRefusedError,
    SignatureRefusedError,
    UsageError,
)
from oscirc_publisher import administration
from oscirc_publisher.roles import next_role, no_role, sign

from .fake_repository import Once, problem

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def key():
    return keys.generate()


@pytest.fixture(scope="module")
def alice():
    return keys.generate()


@pytest.fixture
def first(key):
    """What a server makes: `repository.json`, and no delegations yet."""
    target = TargetFile(10, {"sha256": "0" * 64}, "repository.json")
    return sign(Targets(version=1, expires=NOW, targets={"repository.json": target}), key)


def test_a_publisher_is_one_terminating_delegation_of_its_own_paths(first, key, alice):
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    metadata = Metadata[Targets].from_bytes(raw)
    targets = metadata.signed
    assert targets.version == 2
    assert targets.expires == NOW + timedelta(days=365)
    assert list(targets.targets) == ["repository.json"]
    role = targets.delegations.roles["alice"]
    assert (role.terminating, role.paths, role.threshold, len(role.keyids)) == (True, ["alice/*"], 1, 1)
    assert administration.publishers(raw, key.public_key()) == ["alice"]
    own = Metadata[Targets].from_bytes(next_role(no_role("alice"), {}, alice, NOW))
    targets.verify_delegate("alice", own.signed_bytes, own.signatures)


def test_a_second_publisher_and_the_first_ones_removal(first, key, alice):
    bob = keys.generate().public_key()
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    raw = administration.change_targets(raw, [key], NOW, administration.adding("bob", [bob]))
    assert administration.publishers(raw, key.public_key()) == ["alice", "bob"]
    raw = administration.change_targets(raw, [key], NOW, administration.removing("alice"))
    delegations = Metadata[Targets].from_bytes(raw).signed.delegations
    assert list(delegations.roles) == ["bob"]
    assert len(delegations.keys) == 1
    with pytest.raises(NotFoundError):
        administration.change_targets(raw, [key], NOW, administration.removing("alice"))


def test_one_key_may_serve_two_publishers(first, key, alice):
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    raw = administration.change_targets(raw, [key], NOW, administration.adding("alicia", [alice.public_key()]))
    raw = administration.change_targets(raw, [key], NOW, administration.removing("alice"))
    delegations = Metadata[Targets].from_bytes(raw).signed.delegations
    assert delegations.roles["alicia"].keyids == list(delegations.keys)


def test_a_rotation_leaves_the_new_key_alone(first, key, alice):
    new = keys.generate()
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    raw = administration.change_targets(raw, [key], NOW, administration.rotating("alice", [new.public_key()]))
    targets = Metadata[Targets].from_bytes(raw).signed
    assert len(targets.delegations.keys) == 1
    own = Metadata[Targets].from_bytes(next_role(no_role("alice"), {}, new, NOW))
    targets.verify_delegate("alice", own.signed_bytes, own.signatures)
    with pytest.raises(NotFoundError):
        administration.change_targets(raw, [key], NOW, administration.rotating("bob", [new.public_key()]))


def test_a_name_that_is_taken_or_globs_is_refused(first, key, alice):
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    other = keys.generate().public_key()
    for edit in (administration.adding("alice", [other]), administration.adding("alice", [alice.public_key(), other])):
        with pytest.raises(UsageError, match="already"):
            administration.change_targets(raw, [key], NOW, edit)
    for name in ("?lice", "*", "targets", "../x", "Alice"):
        with pytest.raises(NameRefusedError):
            administration.change_targets(raw, [key], NOW, administration.adding(name, [alice.public_key()]))


def delegated(raw, name="alice"):
    """(threshold, public keys) of a publisher."""
    targets = Metadata[Targets].from_bytes(raw).signed
    role = targets.delegations.roles[name]
    return role.threshold, {targets.delegations.keys[keyid].keyval["public"] for keyid in role.keyids}


def test_the_same_addition_again_changes_nothing_but_the_version(first, key, alice):
    edit = administration.adding("alice", [alice.public_key()])
    raw = administration.change_targets(first, [key], NOW, edit)
    again = administration.change_targets(raw, [key], NOW, edit)
    assert delegated(again) == delegated(raw)


def test_a_planned_rotation_has_both_keys_and_then_one(first, key, alice):
    new = keys.generate()
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    both = administration.change_targets(
        raw, [key], NOW, administration.rotating("alice", [new.public_key()], keep_old=True)
    )
    threshold, marks = delegated(both)
    assert (threshold, len(marks)) == (1, 2)
    old_mark = keys.fingerprint(alice.public_key())
    one = administration.change_targets(both, [key], NOW, administration.revoking("alice", [old_mark[:16]]))
    assert delegated(one)[1] == {new.public_key().public_bytes_raw().hex()}
    with pytest.raises(UsageError, match="last key"):
        new_mark = keys.fingerprint(new.public_key())
        administration.change_targets(one, [key], NOW, administration.revoking("alice", [new_mark]))
    for mark in ("", "12", old_mark):
        with pytest.raises(NotFoundError, match="no one key"):
            administration.change_targets(one, [key], NOW, administration.revoking("alice", [mark]))


def test_several_keys_have_a_threshold_that_they_can_reach(first, key, alice):
    more = [keys.generate().public_key() for _ in range(2)]
    three = [alice.public_key(), *more]
    raw = administration.change_targets(first, [key], NOW, administration.adding("alice", three, 2))
    assert delegated(raw)[0] == 2
    for bad in (0, 4):
        with pytest.raises(UsageError):
            administration.change_targets(first, [key], NOW, administration.adding("alice", three, bad))
    with pytest.raises(UsageError):  # one key twice is one key
        administration.change_targets(first, [key], NOW, administration.adding("alice", [three[0]] * 2, 2))
    marks = [keys.fingerprint(public) for public in more]
    left = administration.change_targets(raw, [key], NOW, administration.revoking("alice", marks[:1]))
    assert (delegated(left)[0], len(delegated(left)[1])) == (2, 2)
    with pytest.raises(UsageError, match="would be left"):
        administration.change_targets(raw, [key], NOW, administration.revoking("alice", marks))
    rotated = administration.change_targets(raw, [key], NOW, administration.rotating("alice", more[:1]))
    assert (delegated(rotated)[0], len(delegated(rotated)[1])) == (1, 1)


def test_every_targets_key_at_hand_signs(first, key, alice):
    second = keys.generate()
    raw = administration.change_targets(first, [key, second], NOW, administration.adding("alice", [alice.public_key()]))
    assert len(Metadata[Targets].from_bytes(raw).signatures) == 2


def test_metadata_that_the_key_did_not_sign_is_not_signed_over(first, key, alice):
    assert b'"length":10' in first
    for bad in (first.replace(b'"length":10', b'"length":11'), b"{}", sign(Targets(version=1, expires=NOW), alice)):
        with pytest.raises(SignatureRefusedError):
            administration.change_targets(bad, [key], NOW, administration.adding("bob", [alice.public_key()]))


def test_older_metadata_than_was_seen_is_not_signed_over(first, key):
    with pytest.raises(RollbackError):
        administration.change_targets(first, [key], NOW, administration.keeping, minimum_version=2)
    assert (
        Metadata[Targets]
        .from_bytes(administration.change_targets(first, [key], NOW, administration.keeping))
        .signed.version
        == 2
    )


def serve(repository, raw, version):
    """The chain of metadata by which a client finds the targets role; nobody's signature is needed for looking."""
    snapshot = Snapshot(version=4, meta={"targets.json": MetaFile(version)})
    repository.files["metadata/timestamp.json"] = Metadata(Timestamp(version=9, snapshot_meta=MetaFile(4))).to_bytes()
    repository.files["metadata/4.snapshot.json"] = Metadata(snapshot).to_bytes()
    repository.files[f"metadata/{version}.targets.json"] = raw


def test_the_served_metadata_is_found_changed_and_sent(repository, first, key, alice):
    serve(repository, first, 1)
    with repository.client() as rest:
        current = administration.fetch_targets(rest)
        assert current == first == administration.fetch_targets(rest, 1)
        new = administration.change_targets(current, [key], NOW, administration.adding("alice", [alice.public_key()]))
        administration.put_targets(rest, new)
    assert repository.files["metadata/2.targets.json"] == new


def test_an_answer_that_was_lost_is_no_conflict_when_our_own_is_served(repository, first, key, alice):
    new = administration.change_targets(first, [key], NOW, administration.adding("alice", [alice.public_key()]))
    conflict = problem(409, "RoleConflictError", "somebody was first", current_version=2)
    repository.faults.append(Once("PUT", ".*/targets", conflict, times=9))
    with repository.client() as rest:
        serve(repository, new, 2)
        administration.put_targets(rest, new)
        serve(repository, first, 1)
        with pytest.raises(ServerRefusedError, match="somebody was first"):
            administration.put_targets(rest, new)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"signed": []}',
        b'{"signed": {"meta": {"snapshot.json": {"version": "../1"}}}}',
        b'{"signed": {"meta": {"snapshot.json": {"version": true}}}}',
        b'{"signed": {"meta": {"snapshot.json": {"version": 0}}}}',
    ],
)
def test_a_chain_that_leads_nowhere_is_refused(repository, raw):
    repository.files["metadata/timestamp.json"] = raw
    with repository.client() as rest, pytest.raises(DocumentRefusedError):
        administration.fetch_targets(rest)


def test_a_repository_without_metadata_is_said(repository):
    with repository.client() as rest, pytest.raises(NotServedError):
        administration.fetch_targets(rest)
