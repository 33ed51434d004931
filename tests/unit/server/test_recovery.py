"""After a thief's jump: one change brings every client back, no number is used twice, crashes in between do no harm."""

import time

import pytest
from support import thief
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from oscirc_blockstore import keys
from oscirc_blockstore.errors import NotFoundError, UsageError
from oscirc_blockstore.signing_request import read_signatures, sign_request
from oscirc_server import ceremonies, ceremony_making, recovery, repository
from oscirc_server.app import create_app
from oscirc_server.disavowed import disavowed, next_unused
from oscirc_server.object_storage import ObjectStorage
from oscirc_server.offline_signing import OfflineKeys, next_root
from oscirc_server.reconciling import reconcile
from oscirc_server.storage import DirectoryStorage

from .in_process import client_of
from .server_world import PASSPHRASE, Api, MovableClock, Publisher, block, make_world
from .tuf_client import updater


@pytest.fixture
def now_world(tmp_path, new_place):
    """A world at the real time, which python-tuf's client goes by, in which alice has released two versions."""
    return make_world(tmp_path / "now", MovableClock(time.time()), place=new_place(tmp_path / "now" / "data"))


@pytest.fixture
def alice(now_world):
    alice = now_world.add_publisher("alice")
    for version in ("1", "2"):
        assert release(now_world, alice, version).status_code == 200
    return alice


def release(world, publisher, version):
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            disk = publisher.build("debian", [block(version)])
            return Api(http, world.made.admin_token).publish(publisher, "debian", version, disk)


def seen(world, state):
    """What a client of this state directory finds for alice/debian."""
    client = updater(world.tree, state, (world.tree / "metadata/1.root.json").read_bytes())
    client.refresh()
    info = client.get_targetinfo("alice/debian.json")
    return client._trusted_set, info


def jump(world, alice, **options):
    thief.jump(world.data, "alice", alice.key, thief.evil_index(alice.indexes["debian"]), tree=world.tree, **options)


@pytest.mark.parametrize("noticed", ["before a restart", "after a restart"])
def test_clients_that_saw_a_jump_come_back(now_world, alice, tmp_path, noticed):
    seen(now_world, tmp_path / "old")
    jump(now_world, alice)
    trusted, info = seen(now_world, tmp_path / "victim")
    assert trusted.snapshot.version == thief.FAR
    evil = info.hashes
    if noticed == "after a restart":  # the server takes the store's word, which its own key signed
        with now_world.open() as installation:
            reconcile(installation)
        assert seen(now_world, tmp_path / "victim")[0].snapshot.version > thief.FAR
    found = {item.role: item for item in now_world.administration.histories()}
    assert (found["alice"].before_jump, found["alice"].highest) == (2, thief.FAR)
    honest = found["snapshot"].before_jump
    back_to = {role: item.before_jump for role, item in found.items() if item.before_jump is not None}
    done = now_world.administration.recover(back_to, now_world.keys, PASSPHRASE)
    assert done.snapshot_version == honest + 1
    assert f"metadata/{thief.FAR}.alice.json" in done.removed
    assert not list((now_world.tree / "metadata").glob(f"{thief.FAR}*"))
    for state in ("victim", "old", "new"):
        trusted, info = seen(now_world, tmp_path / state)
        assert (trusted.root.version, trusted.snapshot.version) == (2, honest + 1)
        assert info.hashes != evil
        assert info.length == len(alice.indexes["debian"].serialise())
    # the publisher has another key from now on, and everything goes on
    new = Publisher("alice", alice.clock, role_version=2, indexes=dict(alice.indexes))
    accepted = now_world.administration.add_publisher("alice", [new.public_pem], now_world.keys, PASSPHRASE)
    assert accepted.unsigned_publishers == ("alice",)
    assert release(now_world, new, "3").status_code == 200
    for state in ("victim", "old", "new"):
        trusted, info = seen(now_world, tmp_path / state)
        assert info.length == len(new.indexes["debian"].serialise())


def test_a_thiefs_files_that_come_back_are_neither_believed_nor_counted(now_world, alice, tmp_path):
    jump(now_world, alice)
    stolen = {path: path.read_bytes() for path in (now_world.tree / "metadata").glob(f"{thief.FAR}*")}
    now_world.administration.recover({"alice": 2, **snapshots(now_world)}, now_world.keys, PASSPHRASE)
    for path, raw in stolen.items():  # from a backup, say, or a crash came before their removal
        path.write_bytes(raw)
    with now_world.open() as installation:
        reconcile(installation)
        with installation.database.read() as session:
            assert repository.current_version(session, "snapshot") < 100
            assert thief.FAR in disavowed(session)["alice"]
    assert not any(path.exists() for path in stolen)


def snapshots(world):
    found = {item.role: item for item in world.administration.histories()}
    return {role: found[role].before_jump for role in ("snapshot", "timestamp") if found[role].before_jump is not None}


def test_a_jump_that_never_reached_the_server_needs_new_online_keys_only(now_world, alice, tmp_path):
    honest = {path: path.read_bytes() for path in now_world.tree.rglob("*.json")}
    jump(now_world, alice)
    seen(now_world, tmp_path / "victim")
    for path in list(now_world.tree.rglob("*.json")):
        if path not in honest:
            path.unlink()
        elif path.read_bytes() != honest[path]:
            path.write_bytes(honest[path])
    with pytest.raises(RepositoryError):
        seen(now_world, tmp_path / "victim")
    assert all(item.before_jump is None for item in now_world.administration.histories())
    done = now_world.administration.recover({}, now_world.keys, PASSPHRASE)
    assert (done.root_version, done.removed) == (2, ())
    assert seen(now_world, tmp_path / "victim")[0].root.version == 2


def test_a_role_does_not_go_back_over_what_was_signed_next(now_world, alice):
    """Then a number would name two things: the publisher signs over it instead."""
    assert release(now_world, alice, "3").status_code == 200
    before = now_world.administration.roles_in_force()
    with pytest.raises(UsageError, match="numbered alike") as caught:
        now_world.administration.recover({"alice": 2}, now_world.keys, PASSPHRASE)
    assert "sign over it" in caught.value.hint
    for back_to, error in (({"root": 0}, UsageError), ({"alice": 77}, NotFoundError), ({"bob": 1}, NotFoundError)):
        with pytest.raises(error):
            now_world.administration.recover(back_to, now_world.keys, PASSPHRASE)
    assert now_world.administration.roles_in_force() == before


def test_recovery_without_the_root_key_changes_nothing(now_world, alice, tmp_path):
    jump(now_world, alice)
    tree = {path: path.read_bytes() for path in now_world.tree.rglob("*.json")}
    back_to = {"alice": 2}
    for keys_dir, passphrase, error in ((tmp_path, PASSPHRASE, NotFoundError), (now_world.keys, "wrong", UsageError)):
        with pytest.raises(error):
            now_world.administration.recover(back_to, keys_dir, passphrase)
    with now_world.open() as installation, pytest.raises(UsageError, match="who signs"):
        recovery.recover(installation, back_to)
    offline = OfflineKeys(now_world.keys, PASSPHRASE)
    current = Metadata[Root].from_bytes(now_world.administration.roles_in_force()[0])
    kept = next_root(current, offline, now_world.clock()).raw
    with pytest.raises(UsageError, match="keeps a snapshot key"):
        now_world.administration.recover(back_to, None, None, signed_root=kept)
    assert {path: path.read_bytes() for path in now_world.tree.rglob("*.json")} == tree


def test_a_thief_in_the_middle_of_a_recovery_finds_nothing_signed_with_the_new_keys(now_world, alice):
    """All of it is one change: no snapshot under the new keys ever named the thief's role."""
    jump(now_world, alice)
    with now_world.open() as installation:
        reconcile(installation)
    now_world.administration.recover({"alice": 2, **snapshots(now_world)}, now_world.keys, PASSPHRASE)
    raw = (now_world.tree / "metadata/timestamp.json").read_bytes()
    version = Metadata[Timestamp].from_bytes(raw).signed.snapshot_meta.version
    snapshot = Metadata[Snapshot].from_bytes((now_world.tree / f"metadata/{version}.snapshot.json").read_bytes())
    assert snapshot.signed.meta["alice.json"].version == 2
    root = Metadata.from_bytes((now_world.tree / "metadata/2.root.json").read_bytes()).signed
    named = set(root.roles["snapshot"].keyids)
    for path in (now_world.tree / "metadata").glob("*.snapshot.json"):
        found = Metadata[Snapshot].from_bytes(path.read_bytes())
        if named & set(found.signatures):
            assert found.signed.meta["alice.json"].version == 2


def test_a_publisher_whose_first_role_was_the_thiefs_starts_anew(now_world, tmp_path):
    bob = now_world.add_publisher("bob")
    other = Publisher("bob", bob.clock, key=bob.key)
    disk = other.build("debian", [block("x")])
    evil = other.index_with("debian", "evil", disk.digest)
    thief.jump(now_world.data, "bob", bob.key, evil, tree=now_world.tree)
    now_world.administration.recover({"bob": 0, **snapshots(now_world)}, now_world.keys, PASSPHRASE)
    assert release(now_world, bob, "1").status_code == 200
    assert release(now_world, bob, "2").json()["role_version"] == 2


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("where", ["replace", "remove"])
def test_a_crash_after_the_commit_is_healed_at_the_next_start(now_world, alice, tmp_path, monkeypatch, where):
    jump(now_world, alice)
    seen(now_world, tmp_path / "victim")
    back_to = {"alice": 2, **snapshots(now_world)}

    def die(*_arguments):
        raise Crash

    with monkeypatch.context() as patched:
        for storage in (DirectoryStorage, ObjectStorage):
            patched.setattr(storage, where, die)
        with pytest.raises(Crash):
            now_world.administration.recover(back_to, now_world.keys, PASSPHRASE)
    with now_world.open() as installation:
        reconcile(installation)
    trusted, info = seen(now_world, tmp_path / "victim")
    assert (trusted.root.version, info.length) == (2, len(alice.indexes["debian"].serialise()))
    assert not list((now_world.tree / "metadata").glob(f"{thief.FAR}*"))


def test_the_same_signed_root_again_changes_nothing(now_world, alice):
    jump(now_world, alice)
    back_to = {"alice": 2, **snapshots(now_world)}
    current = Metadata[Root].from_bytes(now_world.administration.roles_in_force()[0])
    made = now_world.administration.online_keys(new=True)
    request = ceremony_making.root_request(
        current.to_bytes(), now_world.administration.roles_in_force()[1], time.time(), "it", online=made
    )
    root = keys.load_private((now_world.keys / "root.pem").read_bytes(), PASSPHRASE, "root")
    signatures = read_signatures(request, sign_request(request, [(root, ("root",))]), "it")
    raw = ceremonies.assemble(request, signatures)["root"].raw
    done = now_world.administration.recover(back_to, None, None, signed_root=raw)
    tree = {path: path.read_bytes() for path in now_world.tree.rglob("*.json")}
    again = now_world.administration.recover(back_to, None, None, signed_root=raw)
    assert (again.root_version, again.snapshot_version) == (done.root_version, done.snapshot_version)
    assert {path: path.read_bytes() for path in now_world.tree.rglob("*.json")} == tree


def test_numbers_that_were_used_up_are_passed_over():
    assert next_unused(5, "snapshot", {}) == 6
    assert next_unused(5, "snapshot", {"snapshot": frozenset({6, 7, 9}), "alice": frozenset({8})}) == 8
