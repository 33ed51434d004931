"""Renewals and rotations with the offline keys, as python-tuf's own client sees them."""

import time
from pathlib import Path

import pytest
from tuf.api.exceptions import BadVersionNumberError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from oscirc_blockstore import keys
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, NotFoundError, UsageError
from oscirc_blockstore.repository_facts import RepositoryFacts
from oscirc_server.administration import Administration
from oscirc_server.app import create_app
from oscirc_server.key_files import key_path, key_paths
from oscirc_server.repository import resign_online

from .in_process import client_of
from .server_world import DAY_S, PASSPHRASE, Api, MovableClock, block, make_world, signed
from .tuf_client import updater


@pytest.fixture
def now_world(tmp_path, new_place):
    """A world at the real time, which python-tuf's client goes by."""
    return make_world(tmp_path / "now", MovableClock(time.time()), place=new_place(tmp_path / "now" / "data"))


@pytest.fixture
def root_1(now_world):
    return (now_world.tree / "metadata/1.root.json").read_bytes()


def refreshed(world, state, bootstrap):
    client = updater(world.tree, state, bootstrap)
    client.refresh()
    return client


def test_a_plain_client_accepts_what_was_published(now_world, root_1, tmp_path):
    alice = now_world.add_publisher("alice")
    disk = alice.build("debian", [block("a")])
    with now_world.open() as installation, client_of(create_app(installation)) as http:
        assert Api(http, now_world.made.admin_token).publish(alice, "debian", "1.0", disk).status_code == 200
    client = refreshed(now_world, tmp_path / "state", root_1)
    info = client.get_targetinfo("alice/debian.json")
    assert Path(client.download_target(info)).read_bytes() == alice.indexes["debian"].serialise()
    facts = client.get_targetinfo("repository.json")
    assert b"Test repository" in Path(client.download_target(facts)).read_bytes()
    assert client.get_targetinfo("bob/debian.json") is None


@pytest.mark.parametrize("role", ["root", "targets"])
def test_resigning_gives_a_new_version_and_a_new_expiry(now_world, root_1, tmp_path, role):
    state = tmp_path / "state"
    refreshed(now_world, state, root_1)
    now_world.clock.advance(DAY_S)
    renewed = now_world.administration.resign(role, now_world.keys, PASSPHRASE)
    lifetime = {"root": 5 * 365, "targets": 365}[role] * DAY_S
    assert (renewed.role, renewed.version, renewed.expires_s) == (role, 2, int(now_world.clock()) + lifetime)
    client = refreshed(now_world, state, root_1)
    assert client._trusted_set[role].version == 2


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_rotated_key_is_followed_by_old_and_new_clients(now_world, root_1, tmp_path, role):
    refreshed(now_world, tmp_path / "old", root_1)
    before = Metadata.from_bytes(root_1).signed.roles[role].keyids
    renewed = now_world.administration.rotate(role, now_world.keys, PASSPHRASE)
    assert (renewed.role, renewed.version) == ("root", 2)
    raw = (now_world.tree / "metadata/2.root.json").read_bytes()
    assert not set(before) & set(Metadata.from_bytes(raw).signed.roles[role].keyids)
    assert now_world.administration.remote_url() == f"http://repository.test/r#sha256={digest_of(raw).hex()}"
    refreshed(now_world, tmp_path / "old", root_1)
    refreshed(now_world, tmp_path / "new", raw)
    # everything goes on with the new key, and twice
    now_world.add_publisher("bob")
    assert now_world.administration.rotate(role, now_world.keys, PASSPHRASE).version == 3
    refreshed(now_world, tmp_path / "old", root_1)
    directory = now_world.keys if role in ("root", "targets") else now_world.data / "keys"
    assert len(key_paths(directory, role)) == 1
    assert len(list(directory.glob(f"{role}*.retired"))) == 2


def test_a_version_that_a_thief_jumped_ahead_is_recovered_from_by_new_online_keys(now_world, root_1, tmp_path):
    """Timestamp and snapshot keys stolen and used: clients have seen version 1000 and refuse every honest one."""
    state = tmp_path / "state"

    def online(role):
        return keys.load_private(key_path(now_world.data / "keys", role).read_bytes(), None, role)

    honest = {path: path.read_bytes() for path in (now_world.tree / "metadata").iterdir()}
    snapshot = Metadata[Snapshot].from_bytes((now_world.tree / "metadata/1.snapshot.json").read_bytes()).signed
    timestamp = Metadata[Timestamp].from_bytes((now_world.tree / "metadata/timestamp.json").read_bytes()).signed
    snapshot.version = timestamp.version = timestamp.snapshot_meta.version = 1000
    forged = signed(snapshot, online("snapshot"))
    timestamp.snapshot_meta.length, timestamp.snapshot_meta.hashes = len(forged), {"sha256": digest_of(forged).hex()}
    (now_world.tree / "metadata/1000.snapshot.json").write_bytes(forged)
    (now_world.tree / "metadata/timestamp.json").write_bytes(signed(timestamp, online("timestamp")))
    refreshed(now_world, state, root_1)
    (now_world.tree / "metadata/1000.snapshot.json").unlink()
    for path, raw in honest.items():
        path.write_bytes(raw)
    with now_world.open() as installation:
        resign_online(installation)
    with pytest.raises(BadVersionNumberError):
        refreshed(now_world, state, root_1)
    assert now_world.administration.rotate("online", now_world.keys, PASSPHRASE).version == 2
    client = refreshed(now_world, state, root_1)
    assert client._trusted_set["snapshot"].version < 1000


def test_a_stolen_key_signs_nothing_after_its_rotation(now_world, root_1, tmp_path):
    stolen = keys.load_private(key_path(now_world.data / "keys", "timestamp").read_bytes(), None, "timestamp")
    now_world.administration.rotate("timestamp", now_world.keys, PASSPHRASE)
    path = now_world.tree / "metadata/timestamp.json"
    timestamp = Metadata[Timestamp].from_bytes(path.read_bytes()).signed
    timestamp.version += 1
    path.write_bytes(signed(timestamp, stolen))
    with pytest.raises(UnsignedMetadataError):
        refreshed(now_world, tmp_path / "state", root_1)


def test_an_expired_repository_is_refused_until_it_is_renewed(now_world, root_1, tmp_path):
    now_world.clock.advance(-400 * DAY_S)
    past = make_world(tmp_path / "past", now_world.clock)
    root = (past.tree / "metadata/1.root.json").read_bytes()
    with pytest.raises(RepositoryError):
        refreshed(past, tmp_path / "state", root)
    now_world.clock.advance(400 * DAY_S)
    past.administration.resign("targets", past.keys, PASSPHRASE)
    refreshed(past, tmp_path / "state", root)


def test_a_wrong_passphrase_or_place_or_role_signs_nothing(world, tmp_path):
    administration = world.administration
    with pytest.raises(UsageError):
        administration.resign("root", world.keys, "wrong")
    with pytest.raises(UsageError):
        administration.resign("root", world.keys, None)
    with pytest.raises(NotFoundError):
        administration.resign("targets", tmp_path, PASSPHRASE)
    with pytest.raises(UsageError):
        administration.resign("timestamp", world.keys, PASSPHRASE)
    with pytest.raises(UsageError):
        administration.rotate("alice", world.keys, PASSPHRASE)
    with pytest.raises(UsageError):
        administration.rotate("targets", world.keys, "wrong")
    with pytest.raises(UsageError):
        administration.rotate("targets", world.keys, "")
    assert sorted(path.name for path in world.keys.iterdir()) == ["root.pem", "targets.pem"]


def test_the_keys_of_another_repository_sign_nothing(world, tmp_path):
    other = make_world(tmp_path / "other", world.clock)
    with pytest.raises(UsageError, match="holds 0 of the 1"):
        world.administration.resign("root", other.keys, PASSPHRASE)


def test_a_failed_rotation_leaves_the_keys_as_they_were(world, monkeypatch):
    def fail(*_args, **_kwargs):
        raise LocalError("no")

    monkeypatch.setattr("oscirc_server.renewal.next_root", fail)
    for role, directory in (("online", world.data / "keys"), ("targets", world.keys)):
        before = sorted(directory.iterdir())
        with pytest.raises(LocalError):
            world.administration.rotate(role, world.keys, PASSPHRASE)
        assert sorted(directory.iterdir()) == before


def test_repository_facts_and_publishers_are_changed_where_the_keys_are(world):
    world.administration.set_repository_facts(RepositoryFacts("New name"), world.keys, PASSPHRASE)
    bob = world.add_publisher("bob")
    assert [facts.name for facts in world.administration.publishers()] == ["alice", "bob"]
    assert world.administration.publishers()[1].fingerprints == (keys.fingerprint(bob.key.public_key()),)
    assert world.administration.remove_publisher("bob", world.keys, PASSPHRASE).version == 5
    with pytest.raises(NotFoundError):
        world.administration.remove_publisher("bob", world.keys, PASSPHRASE)
    facts, token = world.administration.create_token(["publish:alice"], "ci", 60)
    assert token.startswith("oscirc_")
    world.administration.revoke_token(facts.id)
    assert [item.revoked_s for item in world.administration.tokens() if item.id == facts.id] == [world.clock()]
    assert world.administration.resign_online().version == 6
    assert world.administration.resign_online(above=1000).version == 1001


def test_keys_inside_the_data_directory_are_used_when_no_other_place_is_named(tmp_path):
    world = make_world(tmp_path, offline=False)
    administration = Administration(world.data, clock=world.clock)
    assert administration.resign("targets", None, PASSPHRASE).version == 2
    assert world.keys == world.data / "keys"


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "online"])
def test_a_rotation_is_tried_without_changing_anything(world, tmp_path, role):
    before = {path: path.read_bytes() for path in world.data.parent.rglob("*") if path.is_file()}
    found = world.administration.check_rotation(role, world.keys, PASSPHRASE)
    assert (found.role, found.version) == ("root", 2)
    for place, passphrase, error in ((world.keys, "wrong", UsageError), (tmp_path, PASSPHRASE, NotFoundError)):
        with pytest.raises(error):
            world.administration.check_rotation(role, place, passphrase)
    with pytest.raises(UsageError):
        world.administration.check_rotation("alice", world.keys, PASSPHRASE)
    changed = {path for path, raw in before.items() if path.read_bytes() != raw}
    assert not {path for path in changed if "oscirc.db" not in path.name and path.suffix != ".lock"}
    assert world.administration.rotate(role, world.keys, PASSPHRASE).version == 2
