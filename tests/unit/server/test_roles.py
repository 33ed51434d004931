"""The roles above the publishers: what a new targets role or root must keep to."""

import copy
from datetime import UTC, datetime

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from oscirc_blockstore import keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.repository_facts import RepositoryFacts
from oscirc_server import delegations
from oscirc_server.key_files import key_path

from .server_world import DAY_S, PASSPHRASE, Publisher, block, signed


def private(world, role):
    directory = world.keys if role in ("root", "targets") else world.data / "keys"
    return keys.load_private(key_path(directory, role).read_bytes(), PASSPHRASE, role)


def served(world, role, payload, version):
    return Metadata[payload].from_bytes((world.tree / f"metadata/{version}.{role}.json").read_bytes()).signed


@pytest.fixture
def targets(world):
    """The targets role in force, as the next version, to be changed and signed."""
    role = served(world, "targets", Targets, 2)
    role.version += 1
    return role


@pytest.fixture
def root(world):
    role = served(world, "root", Root, 1)
    role.version += 1
    return role


def put_targets(world, admin, role):
    return admin.call("PUT", "roles/targets", content=signed(role, private(world, "targets")))


def put_root(world, admin, role, *signers):
    return admin.call("PUT", "roles/root", content=signed(role, private(world, "root"), *signers))


def delegated(name, key=None, **changes):
    """A delegation as it should be, but for the changes."""
    public = SSlibKey.from_crypto((key or keys.generate()).public_key())
    role = DelegatedRole(name, [public.keyid], 1, terminating=True, paths=[f"{name}/*"])
    for attribute, value in changes.items():
        setattr(role, attribute, value)
    return role, public


def with_delegation(targets, role, public):
    targets.delegations.roles[role.name] = role
    targets.delegations.keys[public.keyid] = public
    return targets


def test_a_new_publisher_can_publish_at_once(world, admin, http, targets):
    bob = Publisher("bob", clock=world.clock)
    changed = delegations.with_publisher(targets, "bob", [bob.key.public_key()])
    answer = put_targets(world, admin, changed)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"version": 3, "snapshot_version": 3, "unsigned_publishers": []}
    shown = http.get("/api/v1/publishers/bob").json()
    assert shown["fingerprints"] == [keys.fingerprint(bob.key.public_key())]
    assert (shown["role_version"], shown["expires"]) == (0, None)
    assert [item["name"] for item in http.get("/api/v1/publishers").json()["publishers"]] == ["alice", "bob"]
    assert admin.publish(bob, "debian", "1.0", bob.build("debian", [block("b")])).status_code == 200


@pytest.mark.parametrize("version", [1, 2, 4])
def test_another_version_is_a_conflict_that_names_the_current_one(world, admin, targets, version):
    targets.version = version
    answer = put_targets(world, admin, targets)
    assert (answer.status_code, answer.json()["current_version"]) == (409, 2)


def test_another_key_does_not_sign_the_targets_role(world, admin, targets):
    for raw in (signed(targets), signed(targets, keys.generate()), signed(targets, private(world, "root"))):
        answer = admin.call("PUT", "roles/targets", content=raw)
        assert (answer.status_code, answer.json()["type"]) == (403, "SignatureRefusedError")


@pytest.mark.parametrize("name", ["?lice", "*", "a/b", "..", "Alice", "a" * 64, "alice_"])
def test_a_publisher_whose_name_globs_or_climbs_is_refused(world, admin, targets, name):
    with_delegation(targets, *delegated(name))
    answer = put_targets(world, admin, targets)
    assert (answer.status_code, answer.json()["type"]) == (403, "TrustError"), answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": ["*"]},
        {"paths": ["bob/*", "alice/*"]},
        {"paths": ["alice/*"]},
        {"paths": []},
        {"paths": None, "path_hash_prefixes": ["0"]},
        {"terminating": False},
        {"threshold": 2},
        {"keyids": []},
        {"keyids": ["ab" * 32]},
    ],
)
def test_a_delegation_of_another_form_is_refused(world, admin, targets, changes):
    with_delegation(targets, *delegated("bob", **changes))
    answer = put_targets(world, admin, targets)
    assert answer.status_code in (403, 422), answer.text


def test_one_key_under_two_names_does_not_make_a_threshold_of_two(world, admin, targets):
    role, public = delegated("bob")
    twin = SSlibKey("ab" * 32, public.keytype, public.scheme, public.keyval)
    role.keyids.append(twin.keyid)
    role.threshold = 2
    with_delegation(targets, role, public).delegations.keys[twin.keyid] = twin
    answer = put_targets(world, admin, targets)
    assert (answer.status_code, answer.json()["type"]) == (403, "TrustError")


def test_other_kinds_of_keys_are_refused(world, admin, targets):
    role, _ = delegated("bob")
    odd = SSlibKey("ab" * 32, "rsa", "rsassa-pss-sha256", {"public": "-----BEGIN PUBLIC KEY-----"})
    role.keyids[:] = [odd.keyid]
    assert put_targets(world, admin, with_delegation(targets, role, odd)).status_code == 403


def test_a_targets_role_with_other_targets_is_refused(world, admin, targets):
    more = copy.deepcopy(targets)
    more.targets["alice/debian.json"] = TargetFile(1, {"sha256": "ab" * 32}, "alice/debian.json")
    less = copy.deepcopy(targets)
    less.targets.clear()
    bins = copy.deepcopy(targets)
    bins.delegations = None
    for role in (more, less):
        answer = put_targets(world, admin, role)
        assert (answer.status_code, answer.json()["type"]) == (403, "TrustError")


@pytest.mark.parametrize("days", [-1, 0, 400])
def test_a_targets_role_expires_within_a_year(world, admin, targets, days):
    targets.expires = datetime.fromtimestamp(world.clock.now_s + days * DAY_S, UTC)
    assert put_targets(world, admin, targets).status_code == 403


def test_repository_json_is_staged_and_then_named(world, admin, http, targets):
    facts = RepositoryFacts("A better name", "http://repository.test/r/api/v1", ("http://mirror.test/r",))
    changed, raw = delegations.with_repository_facts(targets, facts)
    answer = put_targets(world, admin, changed)
    assert (answer.status_code, answer.json()["type"]) == (403, "TrustError")
    assert admin.call("PUT", "documents/repository.json", content=b"{}").status_code == 422
    assert admin.call("PUT", "documents/repository.json", content=raw).status_code == 204
    assert put_targets(world, admin, changed).status_code == 200
    assert (world.tree / f"targets/{digest_of(raw).hex()}.repository.json").read_bytes() == raw
    assert "A better name" in http.get("/").text


def test_a_removed_publisher_stays_in_the_snapshot_and_leaves_the_catalog(world, admin, http, api, alice, targets):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    removed = delegations.without_publisher(targets, "alice")
    assert put_targets(world, admin, removed).status_code == 200
    snapshot = Metadata.from_bytes((world.tree / "metadata/4.snapshot.json").read_bytes()).signed
    assert snapshot.meta["alice.json"].version == 1
    assert http.get("/api/v1/images").json()["images"] == []
    assert http.get("/api/v1/publishers/alice").status_code == 404


def test_a_returning_publisher_goes_on_above_the_versions_that_were_seen(world, admin, http, api, alice, targets):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
    assert put_targets(world, admin, delegations.without_publisher(targets, "alice")).status_code == 200
    back = served(world, "targets", Targets, 3)
    back.version += 1
    new_key = keys.generate()
    answer = put_targets(world, admin, delegations.with_publisher(back, "alice", [new_key.public_key()]))
    assert answer.json()["unsigned_publishers"] == ["alice"]
    assert http.get("/api/v1/images").json()["images"] == []
    alice.key = new_key
    assert api.call("PUT", "publishers/alice/role", json=alice.offer(alice.indexes)).json()["role_version"] == 2
    assert len(http.get("/api/v1/images").json()["images"]) == 1


def test_a_new_root_signed_by_old_and_new_takes_force(world, admin, http, root):
    fresh = keys.generate()
    old = root.roles["root"].keyids[0]
    root.add_key(CryptoSigner(fresh).public_key, "root")
    root.revoke_key(old, "root")
    answer = put_root(world, admin, root, fresh)
    assert answer.status_code == 200, answer.text
    raw = (world.tree / "metadata/2.root.json").read_bytes()
    assert (world.tree / "roots" / f"{digest_of(raw).hex()}.json").read_bytes() == raw
    assert http.get("/metadata/2.root.json").content == raw
    missing = http.get("/metadata/3.root.json")
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store")


def test_a_root_without_the_old_or_the_new_signature_is_refused(world, admin, root):
    fresh = keys.generate()
    old = root.roles["root"].keyids[0]
    root.add_key(CryptoSigner(fresh).public_key, "root")
    root.revoke_key(old, "root")
    for raw in (signed(root, private(world, "root")), signed(root, fresh), signed(root)):
        answer = admin.call("PUT", "roles/root", content=raw)
        assert (answer.status_code, answer.json()["type"]) == (403, "SignatureRefusedError")


@pytest.mark.parametrize("version", [1, 3, 100])
def test_a_root_of_another_version_is_a_conflict(world, admin, root, version):
    root.version = version
    answer = put_root(world, admin, root)
    assert (answer.status_code, answer.json()["current_version"]) == (409, 1)


def test_a_root_that_would_lock_the_server_or_its_readers_out_is_refused(world, admin, root):
    foreign = copy.deepcopy(root)
    foreign.revoke_key(foreign.roles["timestamp"].keyids[0], "timestamp")
    foreign.add_key(CryptoSigner(keys.generate()).public_key, "timestamp")
    orphaned = copy.deepcopy(root)
    orphaned.revoke_key(orphaned.roles["targets"].keyids[0], "targets")
    orphaned.add_key(CryptoSigner(keys.generate()).public_key, "targets")
    expired = copy.deepcopy(root)
    expired.expires = datetime.fromtimestamp(world.clock.now_s, UTC)
    inconsistent = copy.deepcopy(root)
    inconsistent.consistent_snapshot = False
    for role in (foreign, orphaned, expired, inconsistent):
        answer = put_root(world, admin, role)
        assert answer.status_code == 403, answer.text
    assert not (world.tree / "metadata/2.root.json").exists()


def test_roles_of_another_kind_are_refused(world, admin, targets, root):
    answer = admin.call("PUT", "roles/targets", content=signed(root, private(world, "root")))
    assert (answer.status_code, answer.json()["type"]) == (422, "DocumentRefusedError")
    answer = admin.call("PUT", "roles/root", content=signed(targets, private(world, "targets")))
    assert (answer.status_code, answer.json()["type"]) == (422, "DocumentRefusedError")
    assert admin.call("PUT", "roles/root", content=b" " * 512_001).status_code == 413
    assert isinstance(targets.delegations, Delegations)
