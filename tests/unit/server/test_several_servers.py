"""Several servers on one PostgreSQL and one bucket: fenced, completed by each other, and of one mind about frames."""

import threading
from contextlib import contextmanager

import pytest
from support.places import POSTGRESQL
from tuf.api.metadata import Metadata

from oscirc_blockstore import frame
from oscirc_blockstore.digests import block_digest, block_path
from oscirc_blockstore.errors import BusyError, StoreFullError
from oscirc_server import pending_files, repository
from oscirc_server.app import create_app
from oscirc_server.errors import SupersededError
from oscirc_server.models import BlockRow
from oscirc_server.reconciling import reconcile
from oscirc_server.resigning import upkeep
from oscirc_server.services import accelerators
from oscirc_server.tree_paths import TIMESTAMP_PATH

from .in_process import client_of
from .server_world import BLOCK, DAY_S, Api, Record, block, fork

pytestmark = pytest.mark.parametrize("new_place", [POSTGRESQL], indirect=True)


@pytest.fixture
def two(world):
    """Two servers' installations of one repository."""
    with world.open() as ours, world.open() as theirs:
        reconcile(ours)
        yield ours, theirs


def timestamp(world):
    return Metadata.from_bytes((world.tree / TIMESTAMP_PATH).read_bytes()).signed.version


def newest(installation):
    with installation.database.read() as session:
        return repository.current_version(session, "timestamp")


def waiting(installation):
    with installation.database.read() as session:
        return set(pending_files.marked(session))


def at(monkeypatch, installation, path, happen):
    """Do something once, just before this file is written."""
    real = installation.storage.replace
    done = []

    def replace(written, raw):
        if written == path and not done:
            done.append(written)
            happen()
        real(written, raw)

    monkeypatch.setattr(installation.storage, "replace", replace)


def test_a_writer_that_lost_its_connection_does_not_write_its_timestamp(world, two, monkeypatch):
    ours, theirs = two
    before = timestamp(world)

    def lose():
        world.place.cluster.end_sessions(world.place.database)
        repository.resign_online(theirs)
        assert timestamp(world) == before + 2  # theirs, which comes after ours that nobody has seen

    written = []
    at(monkeypatch, ours, f"metadata/{before + 1}.snapshot.json", lose)
    real = ours.storage.replace
    monkeypatch.setattr(ours.storage, "replace", lambda path, raw: (written.append(path), real(path, raw)))
    with pytest.raises(SupersededError):
        repository.resign_online(ours)
    assert TIMESTAMP_PATH not in written
    assert timestamp(world) == newest(theirs) == before + 2
    assert (world.tree / f"metadata/{before + 1}.snapshot.json").exists()
    repository.resign_online(ours)  # it goes on with a new connection
    assert timestamp(world) == before + 3


def test_an_older_timestamp_that_was_on_its_way_is_put_right_at_once(world, two, monkeypatch):
    """The connection breaks after the last question and before the store has taken the request."""
    ours, theirs = two
    before = timestamp(world)

    def lose():
        world.place.cluster.end_sessions(world.place.database)
        repository.resign_online(theirs)

    at(monkeypatch, ours, TIMESTAMP_PATH, lose)
    with pytest.raises(SupersededError):
        repository.resign_online(ours)
    assert timestamp(world) == before + 2
    assert waiting(ours) == set()


def test_any_servers_upkeep_puts_an_older_timestamp_right(world, two):
    ours, theirs = two
    old = (world.tree / TIMESTAMP_PATH).read_bytes()
    repository.resign_online(ours)
    (world.tree / TIMESTAMP_PATH).write_bytes(old)
    upkeep(theirs)
    assert timestamp(world) == newest(ours)


def test_what_a_server_died_before_writing_another_writes(world, two, alice, monkeypatch):
    ours, theirs = two
    disk = alice.build("debian", [block("a")])

    def dead(_path, _raw):
        raise StoreFullError("as good as dead")

    with client_of(create_app(ours)) as client:
        api = Api(client, world.made.admin_token)
        draft = api.stage(alice, "debian", "1.0", disk)
        monkeypatch.setattr(ours.storage, "replace", dead)
        offer = alice.offer({"debian": alice.index_with("debian", "1.0", disk.digest)})
        assert api.call("POST", f"drafts/{draft}/release", json=offer).status_code == 507
    assert TIMESTAMP_PATH in waiting(theirs)
    upkeep(theirs)
    assert waiting(theirs) == set()
    assert timestamp(world) == newest(theirs)
    assert (world.tree / "metadata/1.alice.json").exists()
    assert (world.tree / "accel/hints/alice/debian.json").exists()


def test_the_next_change_of_another_server_writes_it_too(world, two, monkeypatch):
    ours, theirs = two

    def dead(_path, _raw):
        raise StoreFullError("as good as dead")

    monkeypatch.setattr(ours.storage, "replace", dead)
    with pytest.raises(StoreFullError):
        repository.resign_online(ours)
    lost = newest(ours)
    repository.resign_online(theirs)
    assert timestamp(world) == lost + 1
    assert (world.tree / f"metadata/{lost}.snapshot.json").exists()
    assert waiting(theirs) == set()


def test_listings_that_a_server_died_before_writing_are_written_by_another(world, two, alice, monkeypatch):
    ours, theirs = two
    disk = alice.build("debian", [block("a")])
    with client_of(create_app(ours)) as client:
        api = Api(client, world.made.admin_token)
        monkeypatch.setattr(accelerators, "_write_documents", lambda *_: None)
        assert api.publish(alice, "debian", "1.0", disk).status_code == 200
    monkeypatch.undo()
    listing = f"accel/{disk.digest.hex()}.json"
    assert {listing, "accel/hints/alice/debian.json"} <= waiting(theirs)
    assert not (world.tree / listing).exists()
    upkeep(theirs)
    assert waiting(theirs) == set()
    assert (world.tree / listing).exists()


def test_of_servers_that_find_signatures_old_one_renews_them(world, two):
    before = newest(two[0])
    world.clock.advance(2 * DAY_S)
    ready = threading.Barrier(4, timeout=30)
    failed = []

    def look(installation):
        ready.wait()
        try:
            upkeep(installation)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    with world.open() as third, world.open() as fourth:
        threads = [threading.Thread(target=look, args=(each,)) for each in (*two, third, fourth)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert newest(third) == timestamp(world) == before + 1


def test_servers_that_start_at_the_same_moment_renew_once(world, two):
    before = newest(two[0])
    world.clock.advance(2 * DAY_S)
    ready = threading.Barrier(2, timeout=30)
    failed = []

    def start(installation):
        ready.wait()
        try:
            reconcile(installation)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=start, args=(each,)) for each in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert newest(two[0]) == timestamp(world) == before + 1


@contextmanager
def two_apis(world, two):
    with client_of(create_app(two[0])) as ours, client_of(create_app(two[1])) as theirs:
        apis = Api(ours, world.made.admin_token), Api(theirs, world.made.admin_token)
        for api in apis:  # two applications of one process share what the framework makes of a route's first request
            assert api.call("POST", "drafts", json={}).status_code == 422
        yield apis


def test_publishers_who_release_at_two_servers_at_the_same_moment_all_stand(world, two, alice):
    bob = world.add_publisher("bob")
    ready = threading.Barrier(2, timeout=30)
    answers = {}

    def release(api, publisher):
        for number in range(3):
            disk = publisher.build("debian", [block(f"{publisher.name} {number}"), block("shared")])
            ready.wait()
            answers[publisher.name, number] = api.publish(publisher, "debian", f"{number}", disk).status_code

    with two_apis(world, two) as apis:
        threads = [threading.Thread(target=release, args=each) for each in zip(apis, (alice, bob), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(answers.values()) == {200}
    assert len(answers) == 6
    snapshot = Metadata.from_bytes((world.tree / f"metadata/{newest(two[0])}.snapshot.json").read_bytes()).signed
    assert {name: meta.version for name, meta in snapshot.meta.items()} == {
        "alice.json": 3, "bob.json": 3, "targets.json": 3,
    }  # fmt: skip
    assert timestamp(world) == newest(two[0])


def test_one_publishers_two_machines_at_two_servers_get_one_release(world, two, alice):
    other = fork(alice)
    ready = threading.Barrier(2, timeout=30)
    statuses = []

    def release(api, publisher, version):
        disk = publisher.build("debian", [block(version)])
        draft = api.stage(publisher, "debian", version, disk)
        offer = publisher.offer({"debian": publisher.index_with("debian", version, disk.digest)})
        ready.wait()
        statuses.append(api.call("POST", f"drafts/{draft}/release", json=offer).status_code)

    with two_apis(world, two) as (ours, theirs):
        threads = [
            threading.Thread(target=release, args=each) for each in ((ours, alice, "1.0"), (theirs, other, "1.1"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200, 409]


def test_of_two_frames_of_one_digest_the_first_wins_at_whichever_server(world, two):
    raw = block("contested")
    digest = block_digest(raw)
    kinds = [Record(digest, BLOCK, frame.encode(raw, level)) for level in (1, 9)]
    assert kinds[0].frame != kinds[1].frame
    ready = threading.Barrier(2, timeout=30)
    answers = []

    def upload(api, kind, draft):
        ready.wait()
        answers.append(api.upload(draft, [kind]).json())

    with two_apis(world, two) as apis:
        drafts = [api.draft("alice", "debian", version) for api, version in zip(apis, "12", strict=True)]
        threads = [threading.Thread(target=upload, args=each) for each in zip(apis, kinds, drafts, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answer["stored"] for answer in answers) == [0, 1]
    kept = (world.tree / block_path(digest)).read_bytes()
    with two[0].database.read() as session:
        assert session.get_one(BlockRow, digest).stored_length == len(kept)
    assert kept in [kind.frame for kind in kinds]


def test_a_write_waits_for_one_that_is_alone_and_not_for_shared_ones(two, monkeypatch):
    ours, theirs = two
    monkeypatch.setattr("oscirc_server.database.BUSY_TIMEOUT_MS", 50)
    with ours.database.write(shared=True), theirs.database.write(shared=True):
        pass
    with ours.database.write(), pytest.raises(BusyError), theirs.database.write(shared=True):
        pass
    with ours.database.write(shared=True), pytest.raises(BusyError), theirs.database.write():
        pass
