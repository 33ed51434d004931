"""The start of a server: crashes between commit and projection, restored databases, lost power."""

import base64
from contextlib import contextmanager

import pytest
from sqlalchemy import select
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_server import reconciling, repository
from oscirc_server.app import create_app
from oscirc_server.models import BlockRow
from oscirc_server.reconciling import reconcile
from oscirc_server.services import releases

from .in_process import client_of
from .server_world import Api, block, signed


@contextmanager
def started(world, token=None):
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            yield installation, Api(http, token or world.made.admin_token)


def files(world):
    return {str(path.relative_to(world.tree)): path.read_bytes() for path in world.tree.rglob("*.json")}


def timestamp_of(world):
    return Metadata[Timestamp].from_bytes((world.tree / "metadata/timestamp.json").read_bytes()).signed


def snapshot_of(world):
    version = timestamp_of(world).snapshot_meta.version
    return Metadata[Snapshot].from_bytes((world.tree / f"metadata/{version}.snapshot.json").read_bytes()).signed


def published(world, alice, *versions):
    with started(world) as (_, api):
        for version in versions:
            answer = api.publish(alice, "debian", version, alice.build("debian", [block(version), block("same")]))
            assert answer.status_code == 200, answer.text


def test_a_start_changes_nothing_when_all_is_well(world, alice):
    published(world, alice, "1")
    before = files(world)
    with started(world):
        assert files(world) == before


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("files_written", range(7))
def test_a_crash_between_commit_and_projection_is_healed(world, alice, monkeypatch, files_written):
    """Dies after so many files of: index, manifest, role, snapshot, timestamp, hint."""
    disk = alice.build("debian", [block("a")])
    indexes = {"debian": alice.index_with("debian", "1.0", disk.digest)}
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            api = Api(http, world.made.admin_token)
            draft = api.stage(alice, "debian", "1.0", disk)
        real = installation.storage.replace
        count = 0

        def dying(path, raw):
            nonlocal count
            if count == files_written:
                raise Crash
            count += 1
            real(path, raw)

        monkeypatch.setattr(installation.storage, "replace", dying)
        role = alice.offer(indexes)
        arguments = (installation, draft, base64.b64decode(role["role"]), {"debian": indexes["debian"].serialise()})
        if files_written < 6:
            with pytest.raises(Crash):
                releases.release(*arguments, actor="test")
        else:
            releases.release(*arguments, actor="test")
    shown_before = snapshot_of(world).meta.get("alice.json")
    assert (shown_before is None) == (files_written < 5)
    with started(world) as (_, api):
        assert snapshot_of(world).meta["alice.json"].version == 1
        assert [image["image"] for image in api.call("GET", "images").json()["images"]] == ["debian"]
        assert api.call("POST", f"drafts/{draft}/release", json=role).status_code == 200


def test_a_tree_that_was_lost_is_written_again(world, alice):
    published(world, alice, "1", "2")
    before = files(world)
    for directory in ("metadata", "targets", "roots", "manifests"):
        for path in (world.tree / directory).rglob("*"):
            if path.is_file():
                path.unlink()
    with started(world):
        assert files(world) == before


def test_a_truncated_file_is_written_again(world, alice):
    published(world, alice, "1")
    before = files(world)
    (world.tree / "metadata/1.alice.json").write_bytes(b"")
    (world.tree / "metadata/timestamp.json").write_bytes(b"x" * len(before["metadata/timestamp.json"]))
    with started(world):
        assert files(world) == before


@contextmanager
def restored(world):
    """Whatever is done in the block is forgotten by the database and remembered by the store."""
    saved = world.place.save_database()
    yield
    world.place.restore_database(saved)


def test_a_restored_older_database_takes_over_what_was_signed_and_reuses_no_number(world, alice):
    published(world, alice, "1")
    with restored(world):
        published(world, alice, "2", "3")
    before = (timestamp_of(world).version, snapshot_of(world).version, snapshot_of(world).meta["alice.json"].version)
    tree = files(world)
    with started(world) as (installation, api):
        assert timestamp_of(world).version > before[0]
        assert snapshot_of(world).version > before[1]
        assert snapshot_of(world).meta["alice.json"].version == before[2] == 3
        signed = {path: raw for path, raw in tree.items() if "timestamp" not in path and not path.startswith("accel/")}
        assert {path: raw for path, raw in files(world).items() if path in signed} == signed
        shown = api.call("GET", "images/alice/debian").json()
        assert [version["version"] for version in shown["versions"]] == ["3", "2", "1"]
        assert shown["versions"][0]["download_bytes"] > 0
        with installation.database.read() as session:
            assert len(list(session.scalars(select(BlockRow)))) == 4 + 3
        answer = api.publish(alice, "debian", "4", alice.build("debian", [block("4")]))
        assert (answer.status_code, answer.json()["role_version"]) == (200, 4)


def test_a_restored_database_takes_over_newer_roots_and_publishers(world, alice):
    with restored(world):
        with started(world):
            pass
        world.administration.resign("root", world.keys, "a passphrase for tests")
        bob = world.add_publisher("bob")
        with started(world) as (_, api):
            assert api.publish(bob, "arch", "1", bob.build("arch", [block("b")])).status_code == 200
    with started(world) as (installation, api):
        assert [item["name"] for item in api.call("GET", "publishers").json()["publishers"]] == ["alice", "bob"]
        with installation.database.read() as session:
            assert repository.current_version(session, "root") == 2
        assert api.publish(bob, "arch", "2", bob.build("arch", [block("c")])).status_code == 200


def test_a_role_that_readers_have_seen_and_nobody_has_keeps_the_server_from_starting(world, alice):
    published(world, alice, "1")
    with restored(world):
        published(world, alice, "2")
    (world.tree / "metadata/2.alice.json").unlink()
    before = files(world)
    with pytest.raises(LocalError, match="version 2 of alice's role"), started(world):
        pass
    assert files(world) == before


def test_a_role_whose_index_was_lost_is_taken_over_all_the_same(world, alice):
    published(world, alice, "1")
    with restored(world):
        published(world, alice, "2")
    lost = digest_of(alice.indexes["debian"].serialise()).hex()
    (world.tree / f"targets/alice/{lost}.debian.json").unlink()
    with started(world):
        assert snapshot_of(world).meta["alice.json"].version == 2


def test_a_snapshot_that_this_repository_did_not_sign_is_not_believed_but_its_number_is_not_used(world, alice):
    published(world, alice, "1")
    forged = Metadata[Snapshot].from_bytes((world.tree / "metadata/3.snapshot.json").read_bytes())
    forged.signed.version = 9
    forged.signed.meta["alice.json"].version = 8
    (world.tree / "metadata/9.snapshot.json").write_bytes(forged.to_bytes())
    (world.tree / "metadata/99999999999999.snapshot.json").write_bytes(b"{}")
    with started(world):
        assert snapshot_of(world).version == 10
        assert snapshot_of(world).meta["alice.json"].version == 1


def test_a_root_in_the_store_that_is_not_the_next_one_is_not_believed(world):
    first = (world.tree / "metadata/1.root.json").read_bytes()
    (world.tree / "metadata/2.root.json").write_bytes(first)
    (world.tree / "metadata/50.snapshot.json").write_bytes(b"{}")
    with started(world) as (installation, _):
        with installation.database.read() as session:
            assert repository.current_version(session, "root") == 1
        assert snapshot_of(world).version == 51


def test_after_a_power_cut_unsynced_uploads_are_asked_for_again(world, alice, monkeypatch, tmp_path):
    boot = tmp_path / "boot_id"
    boot.write_text("first boot")
    monkeypatch.setattr(reconciling, "_BOOT_ID_PATH", boot)
    disk = alice.build("debian", [block("released")])
    unsynced = alice.build("ubuntu", [block("uploaded")])
    with started(world) as (_, api):
        assert api.publish(alice, "debian", "1", disk).status_code == 200
        draft = api.draft("alice", "ubuntu", "1")
        api.upload(draft, unsynced.records)
    digests = [record.digest for record in (*disk.records, *unsynced.records)]
    with started(world) as (_, api):  # a crash of the process loses nothing
        assert api.missing(draft, digests) == []
    boot.write_text("second boot")
    with started(world) as (_, api):
        lost = [] if world.place.keeps_what_is_put else [record.digest for record in unsynced.records]
        assert api.missing(draft, digests) == lost
        assert api.upload(draft, unsynced.records).json() == {"stored": 0, "present": 2, "stored_bytes": 0}


def test_expired_online_roles_are_renewed_at_the_start(world):
    world.clock.advance(400 * 86_400)
    with started(world) as (_, api):
        assert timestamp_of(world).expires.timestamp() == world.clock() + 7 * 86_400
        ready = api.call("GET", "health/ready")
        assert (ready.status_code, ready.json()["failing"]) == (503, ["targets expired"])


def test_a_clock_that_was_wrong_is_noticed(world, installation):
    with installation.database.read() as session:
        assert not repository.online_due(session, world.clock())
        assert not repository.online_due(session, world.clock() + 86_399)
        assert repository.online_due(session, world.clock() + 86_400)
        assert repository.online_due(session, world.clock() - 3600)


def without_newest_snapshots(world, first_gone):
    """The store as it is when the newest snapshots and the timestamp were lost, too."""
    (world.tree / "metadata/timestamp.json").unlink()
    for path in (world.tree / "metadata").glob("*.snapshot.json"):
        if int(path.name.partition(".")[0]) >= first_gone:
            path.unlink()


def test_a_publishers_role_that_no_snapshot_names_keeps_its_number(world, alice):
    published(world, alice, "1")
    first_gone = snapshot_of(world).version + 1
    with restored(world):
        published(world, alice, "2", "3")
    signed = (world.tree / "metadata/3.alice.json").read_bytes()
    without_newest_snapshots(world, first_gone)
    (world.tree / "metadata/2.alice.json").unlink()  # a gap is no reason to use the number behind it again
    with started(world) as (_, api):
        assert snapshot_of(world).meta["alice.json"].version == 3
        assert [item["version"] for item in api.call("GET", "images/alice/debian").json()["versions"]] == [
            "3",
            "2",
            "1",
        ]
        assert api.publish(alice, "debian", "4", alice.build("debian", [block("4")])).json()["role_version"] == 4
    assert (world.tree / "metadata/3.alice.json").read_bytes() == signed


def test_a_targets_role_that_no_snapshot_names_keeps_its_number(world, alice):
    published(world, alice, "1")
    first_gone = snapshot_of(world).version + 1
    with restored(world):
        bob = world.add_publisher("bob")
        published(world, bob, "1")
    without_newest_snapshots(world, first_gone)
    with started(world):
        assert snapshot_of(world).meta["targets.json"].version == 3
        assert snapshot_of(world).meta["bob.json"].version == 1


@pytest.mark.parametrize("fault", ["altered", "without its index", "signed by others", "far ahead"])
def test_a_role_in_the_store_that_does_not_hold_is_not_taken_over(world, alice, fault):
    published(world, alice, "1")
    with restored(world):
        published(world, alice, "2")
    without_newest_snapshots(world, 4)
    path = world.tree / "metadata/2.alice.json"
    if fault == "altered":
        path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":7'))
    elif fault == "signed by others":
        role = Metadata.from_bytes(path.read_bytes())
        role.signatures.clear()
        path.write_bytes(role.to_bytes())
    elif fault == "far ahead":  # with her key it is as good as any, and still no way to jump
        path.unlink()
        far = alice.role(alice.indexes, version=5000)
        (world.tree / "metadata/5000.alice.json").write_bytes(signed(far, alice.key))
    else:
        (world.tree / f"targets/alice/{digest_of(alice.indexes['debian'].serialise()).hex()}.debian.json").unlink()
    with started(world):
        assert snapshot_of(world).meta["alice.json"].version == 1


def test_a_timestamp_that_was_lost_does_not_make_its_number_used_again(world, alice):
    published(world, alice, "1")
    with restored(world):
        published(world, alice, "2", "3", "4")
    before = timestamp_of(world).version
    (world.tree / "metadata/timestamp.json").unlink()
    with started(world):
        assert timestamp_of(world).version > before
