"""Changes of the repository: all or nothing, one after the other, and a tree that follows the database."""

import threading

import pytest
from sqlalchemy import func, select
from tuf.api.metadata import Metadata

from oscirc_blockstore.errors import StoreFullError
from oscirc_server import repository
from oscirc_server.metadata import SignedMetadata
from oscirc_server.models import SignedRole

from .server_world import block, fork


def latest(world, role, version):
    return Metadata.from_bytes((world.tree / f"metadata/{version}.{role}.json").read_bytes()).signed


def test_a_change_that_fails_leaves_database_and_tree_as_they_were(world, installation):
    before = {path: path.read_bytes() for path in world.tree.rglob("*.json")}
    with pytest.raises(RuntimeError), repository.changing(installation) as change:
        change.add_document("targets/x.json", b"{}")
        change.add_role(SignedMetadata("bob", 1, b"{}", 1))
        raise RuntimeError
    assert {path: path.read_bytes() for path in world.tree.rglob("*.json")} == before
    with installation.database.read() as session:
        assert repository.current(session, "bob") is None


def test_re_signing_renews_snapshot_and_timestamp_for_a_week(world, installation):
    world.clock.advance(3600)
    version = repository.resign_online(installation)
    assert version == 3
    snapshot = latest(world, "snapshot", 3)
    timestamp = Metadata.from_bytes((world.tree / "metadata/timestamp.json").read_bytes()).signed
    assert (snapshot.expires.timestamp(), timestamp.expires.timestamp()) == (world.clock() + 7 * 86_400,) * 2
    assert (timestamp.version, timestamp.snapshot_meta.version) == (3, 3)
    assert {name: meta.version for name, meta in snapshot.meta.items()} == {"targets.json": 2}


def test_what_a_version_number_was_used_for_is_never_changed(installation):
    with pytest.raises(Exception, match=r"UNIQUE|duplicate key"), repository.changing(installation) as change:
        change.add_role(SignedMetadata("targets", 2, b"{}", 1))


def test_a_projection_that_fails_is_completed_later(world, installation, http, api, alice, monkeypatch):
    real = installation.storage.replace

    def full(path, raw):
        if "snapshot" in path:
            raise StoreFullError("no space left")
        real(path, raw)

    monkeypatch.setattr(installation.storage, "replace", full)
    disk = alice.build("debian", [block("a")])
    draft = api.stage(alice, "debian", "1.0", disk)
    indexes = {"debian": alice.index_with("debian", "1.0", disk.digest)}
    offer = alice.offer(indexes)
    assert api.call("POST", f"drafts/{draft}/release", json=offer).status_code == 507
    assert installation.projection_pending
    assert http.get("/api/v1/health/ready").json()["failing"] == ["projection"]
    assert not (world.tree / "metadata/3.snapshot.json").exists()
    monkeypatch.undo()
    again = api.call("POST", f"drafts/{draft}/release", json=offer)
    assert (again.status_code, again.json()) == (200, {"role_version": 1, "snapshot_version": 3})
    assert latest(world, "snapshot", 3).meta["alice.json"].version == 1
    assert http.get("/api/v1/health/ready").status_code == 200


def test_a_later_change_completes_an_earlier_projection(world, installation, monkeypatch):
    def full(_path, _raw):
        raise StoreFullError("no space left")

    monkeypatch.setattr(installation.storage, "replace", full)
    with pytest.raises(StoreFullError):
        repository.resign_online(installation)
    monkeypatch.undo()
    repository.resign_online(installation)
    assert (world.tree / "metadata/3.snapshot.json").exists()
    assert (world.tree / "metadata/4.snapshot.json").exists()
    assert not installation.projection_pending


def test_two_publishers_who_release_at_the_same_moment_both_stand(world, installation, admin, alice):
    bob = world.add_publisher("bob")
    ready = threading.Barrier(2)
    answers = {}

    def release(publisher):
        disk = publisher.build("debian", [block(publisher.name)])
        draft = admin.stage(publisher, "debian", "1.0", disk)
        offer = publisher.offer({"debian": publisher.index_with("debian", "1.0", disk.digest)})
        ready.wait()
        answers[publisher.name] = admin.call("POST", f"drafts/{draft}/release", json=offer)

    threads = [threading.Thread(target=release, args=(publisher,)) for publisher in (alice, bob)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers.values()] == [200, 200]
    versions = sorted(answer.json()["snapshot_version"] for answer in answers.values())
    assert versions[1] == versions[0] + 1
    meta = latest(world, "snapshot", versions[1]).meta
    assert (meta["alice.json"].version, meta["bob.json"].version) == (1, 1)


def test_of_one_publishers_two_machines_only_one_wins(installation, api, alice):
    machines = [alice, fork(alice)]
    ready = threading.Barrier(2)
    codes = []

    def release(machine, image):
        disk = machine.build(image, [block(image)])
        draft = api.stage(machine, image, "1.0", disk)
        offer = machine.offer({image: machine.index_with(image, "1.0", disk.digest)})
        ready.wait()
        codes.append(api.call("POST", f"drafts/{draft}/release", json=offer).status_code)

    threads = [
        threading.Thread(target=release, args=(machine, image))
        for machine, image in zip(machines, ("debian", "ubuntu"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409]
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).where(SignedRole.role == "alice")) == 1


def test_a_server_without_the_online_keys_says_that_it_is_its_own_fault(world, alice, api):
    """Of several servers one was forgotten when keys were rotated: whoever publishes there tries another."""
    for role in ("snapshot", "timestamp"):
        (world.data / "keys" / f"{role}.pem").rename(world.data / "keys" / f"{role}.elsewhere")
    answer = api.publish(alice, "debian", "1", alice.build("debian", [block("a")]))
    assert (answer.status_code, answer.json()["type"]) == (503, "OnlineKeyMissingError")
    assert str(world.data) not in answer.text
    for role in ("snapshot", "timestamp"):
        (world.data / "keys" / f"{role}.elsewhere").rename(world.data / "keys" / f"{role}.pem")
    assert api.publish(alice, "debian", "1", alice.build("debian", [block("a")])).status_code == 200
