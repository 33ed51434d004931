"""Collections: what is needed stays, what nothing needs goes in two steps, and whoever comes in between is heard."""

from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import BusyError
from oscirc_blockstore.manifest import manifest_path
from oscirc_server import repository
from oscirc_server.administration import Administration
from oscirc_server.app import create_app
from oscirc_server.collection import collecting, marking
from oscirc_server.collection.collecting import collect, look_after
from oscirc_server.collection.scrubbing import scrub
from oscirc_server.errors import UnreadableRootError
from oscirc_server.initialising import initialise
from oscirc_server.installation import Installation
from oscirc_server.locks import COLLECTOR
from oscirc_server.models import BlockRow, Document, Draft, Lease, ManifestRow, SignedRole
from oscirc_server.object_storage import ObjectStorage
from oscirc_server.reconciling import reconcile
from oscirc_server.services import blocks
from oscirc_server.services.blocks import claim
from oscirc_server.settings import CollectionSettings, Settings
from oscirc_server.storage import DirectoryStorage

from .in_process import client_of
from .server_world import DAY_S, PASSPHRASE, Api, MovableClock, Publisher, block
from .test_releases import refused

TOLD_S = 38 * DAY_S
"""A snapshot's seven days and thirty more, and one."""


@pytest.fixture
def world(world, monkeypatch):
    """Whatever stands in the store was written two days ago by this test's clock."""
    real = DirectoryStorage.files

    def files(storage, prefix):
        for file in real(storage, prefix):
            yield replace(file, modified_s=world.clock() - 2 * DAY_S)

    monkeypatch.setattr(DirectoryStorage, "files", files)
    return world


def stored(installation, digest):
    return installation.storage.size(block_path(digest)) is not None


def state_of(installation, digest):
    with installation.database.read() as session:
        return session.scalar(select(BlockRow.state).where(BlockRow.digest == digest))


def two_versions(api, alice):
    old = alice.build("debian", [block("shared"), block("old")])
    new = alice.build("debian", [block("shared"), block("new")])
    assert api.publish(alice, "debian", "1", old).status_code == 200
    assert api.publish(alice, "debian", "2", new).status_code == 200
    return old, new


def delete_version(api, alice, *labels):
    index = alice.indexes["debian"].without_versions(labels, date="2027-02-01T00:00:00Z")
    answer = api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index}))
    assert answer.status_code == 200, answer.text
    alice.took_force({"debian": index})


def renew(installation):
    repository.resign_online(installation)


def everything_of(disk):
    return {record.digest for record in disk.records}


def test_what_versions_need_is_left_alone(installation, world, api, alice):
    old, new = two_versions(api, alice)
    for _ in range(3):
        world.clock.advance(TOLD_S)
        report = collect(installation)
        assert (report.condemned.number, report.deleted.number, report.orphans.number) == (0, 0, 0)
        assert report.complete
    assert report.needed == len(everything_of(old) | everything_of(new))
    assert all(stored(installation, digest) for digest in everything_of(old) | everything_of(new))


def test_a_deleted_version_goes_once_no_client_can_ask_for_it_and_what_others_share_stays(
    installation, world, api, alice, no_block_lengths
):
    old, new = two_versions(api, alice)
    only_old = everything_of(old) - everything_of(new)
    delete_version(api, alice, "1")
    world.clock.advance(TOLD_S - 2 * DAY_S)
    renew(installation)
    assert collect(installation).manifests_retired == 0
    world.clock.advance(2 * DAY_S)
    report = collect(installation)
    assert (report.manifests_retired, report.condemned.number) == (1, len(only_old))
    assert all(stored(installation, digest) for digest in only_old)
    world.clock.advance(DAY_S - 60)
    assert collect(installation).waiting.number == len(only_old)
    world.clock.advance(120)
    report = collect(installation)
    assert report.deleted.number == len(only_old)
    assert not any(stored(installation, digest) for digest in only_old)
    assert all(stored(installation, digest) for digest in everything_of(new))
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(BlockRow)) == len(everything_of(new))
    assert installation.storage.size(manifest_path(old.digest)) is None
    assert installation.storage.size(manifest_path(new.digest)) is not None


def test_a_dry_run_says_the_same_and_changes_nothing(installation, world, api, alice):
    two_versions(api, alice)
    delete_version(api, alice, "1")
    world.clock.advance(TOLD_S)
    renew(installation)
    dry = collect(installation, dry_run=True)
    again = collect(installation, dry_run=True)
    assert dry.condemned == again.condemned
    assert dry.manifests_retired == 1
    assert collect(installation).condemned == dry.condemned
    world.clock.advance(2 * DAY_S)
    dry = collect(installation, dry_run=True)
    assert dry.deleted.number > 0
    assert collect(installation).deleted == dry.deleted


def test_a_publisher_that_forgot_to_sign_again_loses_nothing(installation, world, api, alice):
    disk, _ = two_versions(api, alice)
    world.clock.advance(2 * 365 * DAY_S)
    for _ in range(3):
        report = collect(installation)
        assert (report.manifests_retired, report.condemned.number) == (0, 0)
        world.clock.advance(2 * DAY_S)
    assert all(stored(installation, digest) for digest in everything_of(disk))


def test_the_versions_of_a_removed_publisher_stay_until_its_own_signature_has_expired(installation, world, api, alice):
    disk, _ = two_versions(api, alice)
    world.administration.remove_publisher("alice", world.keys, "a passphrase for tests")
    world.clock.advance(TOLD_S)
    assert collect(installation).manifests_retired == 0
    world.clock.advance(365 * DAY_S)
    assert collect(installation).manifests_retired == 2
    world.clock.advance(2 * DAY_S)
    collect(installation)
    assert not any(stored(installation, digest) for digest in everything_of(disk))


def test_what_a_draft_leases_stays_and_goes_when_it_has_expired(installation, world, api, alice):
    disk = alice.build("debian", [block("a"), block("b")])
    api.stage(alice, "debian", "1", disk)
    world.clock.advance(3 * DAY_S)
    assert collect(installation).condemned.number == 0
    world.clock.advance(5 * DAY_S)
    report = collect(installation)
    assert (report.drafts_expired, report.condemned.number) == (1, 3)
    world.clock.advance(2 * DAY_S)
    assert collect(installation).deleted.number == 3


def condemned_disk(installation, world, api, alice):
    """A disk whose draft was discarded, its blocks condemned."""
    disk = alice.build("debian", [block("a"), block("b")])
    draft = api.stage(alice, "debian", "1", disk)
    assert api.call("DELETE", f"drafts/{draft}").status_code == 204
    world.clock.advance(60)
    assert collect(installation).condemned.number == 3
    return disk


def of_what_was_put(world):
    """The state of a block that is wanted again: a directory has not synced it yet."""
    return "live" if world.place.keeps_what_is_put else "staged"


def test_a_condemned_block_that_a_draft_asks_about_is_present_and_lives_again(installation, world, api, alice):
    disk = condemned_disk(installation, world, api, alice)
    draft = api.draft("alice", "debian", "1")
    assert api.missing(draft, everything_of(disk)) == []
    assert {state_of(installation, digest) for digest in everything_of(disk)} == {of_what_was_put(world)}
    world.clock.advance(2 * DAY_S)
    assert collect(installation).deleted.number == 0


def test_a_condemned_block_that_is_uploaded_again_lives_again(installation, world, api, alice):
    disk = condemned_disk(installation, world, api, alice)
    draft = api.draft("alice", "debian", "1")
    answer = api.upload(draft, disk.records)
    assert answer.json()["present"] == 3
    assert {state_of(installation, digest) for digest in everything_of(disk)} == {of_what_was_put(world)}


def test_a_release_leases_what_its_draft_never_asked_about(installation, world, api, alice):
    disk = condemned_disk(installation, world, api, alice)
    draft = api.draft("alice", "debian", "1")
    assert api.call("PUT", f"drafts/{draft}/manifest", content=disk.raw).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1", disk.digest)}
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
    world.clock.advance(2 * DAY_S)
    report = collect(installation)
    assert (report.condemned.number, report.deleted.number) == (0, 0)


def being_deleted(installation, digests):
    with installation.database.write() as session:
        session.execute(update(BlockRow).where(BlockRow.digest.in_(digests)).values(state="deleting", condemned_s=1))


def test_while_a_block_is_deleted_uploads_are_asked_to_come_again(installation, world, api, alice):
    disk = condemned_disk(installation, world, api, alice)
    first = disk.blocks[0].digest
    being_deleted(installation, [first])
    draft = api.draft("alice", "debian", "1")
    assert api.missing(draft, [record.digest for record in disk.records]) == [first]
    answer = api.upload(draft, disk.records)
    refused(answer, 409, "BlocksBeingDeletedError")
    assert answer.headers["Retry-After"] == "1"
    assert api.call("PUT", f"drafts/{draft}/manifest", content=disk.raw).status_code == 204
    indexes = {"debian": alice.index_with("debian", "1", disk.digest)}
    answer = api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes))
    refused(answer, 409, "BlocksBeingDeletedError")
    assert answer.headers["Retry-After"] == "1"
    look_after(installation)
    assert not stored(installation, first)
    assert api.upload(draft, disk.records).status_code == 200
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200


def test_a_lease_that_comes_between_mark_and_sweep_is_heard(installation, world, api, alice, monkeypatch):
    disk = condemned_disk(installation, world, api, alice)
    world.clock.advance(2 * DAY_S)
    draft = api.draft("alice", "debian", "1")
    real = marking.mark

    def mark_and_be_overtaken(*arguments, **options):
        found = real(*arguments, **options)
        with installation.database.write() as session:
            claim(session, draft, sorted(everything_of(disk)), durable=installation.storage.durable_on_put)
        return found

    monkeypatch.setattr(marking, "mark", mark_and_be_overtaken)
    report = collect(installation)
    assert report.deleted.number == 0
    assert {state_of(installation, digest) for digest in everything_of(disk)} == {of_what_was_put(world)}


def test_a_version_that_is_released_between_mark_and_sweep_is_heard(installation, world, api, alice, monkeypatch):
    disk = condemned_disk(installation, world, api, alice)
    real = marking.mark

    def mark_and_be_overtaken(*arguments, **options):
        found = real(*arguments, **options)
        if not alice.indexes:
            assert api.publish(alice, "debian", "1", disk).status_code == 200
        return found

    monkeypatch.setattr(marking, "mark", mark_and_be_overtaken)
    for _ in range(3):
        world.clock.advance(2 * DAY_S)
        report = collect(installation)
        assert (report.deleted.number, report.condemned.number) == (0, 0)


def test_a_manifest_that_is_named_again_at_the_last_moment_stays(installation, world, api, alice, monkeypatch):
    old, _ = two_versions(api, alice)
    delete_version(api, alice, "1")
    world.clock.advance(TOLD_S)
    renew(installation)
    real = collecting.tree_files.retirable

    def retirable_and_be_overtaken(session, told):
        found = real(session, told)
        index = alice.index_with("debian", "1.1", old.digest)
        answer = api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index}))
        assert answer.status_code == 200, answer.text
        return found

    monkeypatch.setattr(collecting.tree_files, "retirable", retirable_and_be_overtaken)
    report = collect(installation)
    assert (report.manifests_retired, report.condemned.number) == (0, 0)


def test_once_a_disk_is_retired_no_role_can_name_it_again(installation, world, api, alice):
    old, _ = two_versions(api, alice)
    delete_version(api, alice, "1")
    world.clock.advance(TOLD_S)
    renew(installation)
    assert collect(installation).manifests_retired == 1
    index = alice.index_with("debian", "1.1", old.digest)
    refused(api.call("PUT", "publishers/alice/role", json=alice.offer({"debian": index})), 403, "TrustError")


@pytest.mark.parametrize("what", ["node", "manifest", "index", "role"])
def test_one_unreadable_root_stops_everything(installation, world, api, alice, what):
    old, new = two_versions(api, alice)
    draft = api.stage(alice, "other", "1", alice.build("other", [block("x")]))
    assert api.call("DELETE", f"drafts/{draft}").status_code == 204
    world.clock.advance(DAY_S)
    with installation.database.write() as session:
        if what == "node":
            installation.storage.remove(block_path(new.nodes[0].digest))
        elif what == "manifest":
            session.execute(update(ManifestRow).where(ManifestRow.digest == old.digest).values(raw=b"{}"))
        elif what == "index":
            session.execute(delete(Document).where(Document.path.contains("debian")))
        else:
            session.execute(update(SignedRole).where(SignedRole.role == "alice").values(raw=b"{}"))
    for dry_run in (True, False):
        with pytest.raises(UnreadableRootError):
            collect(installation, dry_run=dry_run)
    with installation.database.read() as session:
        assert set(session.scalars(select(BlockRow.state))) <= {"live", "staged"}


def orphan(installation, text):
    record_frame = b"frame " + text.encode()
    digest = digest_of(text.encode())
    installation.storage.put_if_absent(block_path(digest), record_frame)
    return digest


def test_files_that_nothing_knows_go_and_those_that_something_needs_come_back(installation, world, api, alice):
    disk, _ = two_versions(api, alice)
    strange = orphan(installation, "strange")
    known = disk.blocks[1]
    with installation.database.write() as session:
        blocks.forget(session, known.digest)
    world.clock.advance(60)
    report = collect(installation)
    assert (report.orphans.number, report.adopted.number) == (1, 1)
    assert not stored(installation, strange)
    assert stored(installation, known.digest)
    with installation.database.read() as session:
        row = session.get(BlockRow, known.digest)
        assert (row.raw_size, row.stored_length) == (known.raw_size, len(known.frame))


def test_young_files_that_nothing_knows_stay(installation, monkeypatch, world):
    strange = orphan(installation, "strange")
    monkeypatch.undo()
    world.clock.now_s = (world.tree / block_path(strange)).stat().st_mtime + 60
    assert collect(installation).orphans.number == 0
    assert stored(installation, strange)


def test_a_file_that_is_being_uploaded_is_no_orphan(installation, world, api, alice):
    draft = api.draft("alice", "debian", "1")
    strange = orphan(installation, "uploading")
    with installation.database.write() as session:
        claim(session, draft, [strange], durable=False, absent_too=True)
    assert collect(installation).orphans.number == 0
    assert stored(installation, strange)


def test_a_block_that_is_lost_is_told_and_asked_for_again(installation, world, api, alice):
    disk, _ = two_versions(api, alice)
    lost = disk.blocks[1].digest
    installation.storage.remove(block_path(lost))
    world.clock.advance(60)
    report = collect(installation)
    assert report.lost == [lost.hex()]
    assert collect(installation).lost == [lost.hex()]
    draft = api.draft("alice", "debian", "3")
    assert api.missing(draft, everything_of(disk)) == [lost]


def test_a_block_that_is_damaged_where_no_row_knows_it_is_told_and_left(installation, world, api, alice):
    disk, _ = two_versions(api, alice)
    damaged = disk.blocks[1].digest
    with installation.database.write() as session:
        blocks.forget(session, damaged)
    installation.storage.replace(block_path(damaged), b"nonsense")
    assert collect(installation).damaged == [damaged.hex()]
    assert stored(installation, damaged)


def test_one_collects_at_a_time(installation):
    with installation.locks.held(COLLECTOR):
        assert look_after(installation) is None
        with pytest.raises(BusyError):
            collect(installation)


def test_the_server_collects_once_a_day_and_the_first_time_after_a_day(installation, world):
    assert look_after(installation) is None
    world.clock.advance(DAY_S - 1)
    assert look_after(installation) is None
    world.clock.advance(1)
    assert look_after(installation).complete
    assert look_after(installation) is None
    world.clock.advance(DAY_S)
    assert look_after(installation).complete


def test_a_server_that_stops_leaves_the_rest_for_later(installation, world, api, alice):
    condemned_disk(installation, world, api, alice)
    world.clock.advance(2 * DAY_S)
    report = collect(installation, stopped=lambda: True)
    assert not report.complete
    assert report.deleted.number == 0
    assert collect(installation).deleted.number == 3


def test_old_metadata_and_indexes_go_and_what_is_in_force_stays(installation, world, api, alice, http):
    two_versions(api, alice)
    with installation.database.read() as session:
        before = session.scalar(select(func.count()).select_from(SignedRole))
        documents = session.scalar(select(func.count()).select_from(Document))
    world.clock.advance(TOLD_S)
    renew(installation)
    collect(installation)
    with installation.database.read() as session:
        roles = {row.role for row in session.scalars(select(SignedRole))}
        assert roles == {"root", "targets", "snapshot", "timestamp", "alice"}
        assert session.scalar(select(func.count()).select_from(SignedRole)) < before
        assert session.scalar(select(func.count()).select_from(Document)) == documents - 1
        role = session.scalar(select(SignedRole).where(SignedRole.role == "alice"))
    assert http.get(f"/metadata/{role.version}.alice.json").status_code == 200
    assert http.get(f"/metadata/{role.version - 1}.alice.json").status_code == 404
    assert http.get("/metadata/1.root.json").status_code == 200
    assert http.get("/api/v1/images/alice/debian").json()["version_count"] == 2


def test_metadata_that_the_database_does_not_know_yet_is_never_removed(installation, world, api, alice):
    two_versions(api, alice)
    installation.storage.put_if_absent("metadata/99.snapshot.json", b"{}")
    installation.storage.put_if_absent("metadata/9.bob.json", b"{}")
    world.clock.advance(TOLD_S)
    renew(installation)
    collect(installation)
    assert installation.storage.size("metadata/99.snapshot.json") is not None
    assert installation.storage.size("metadata/9.bob.json") is not None


def test_accelerators_that_nothing_lists_go(installation, world, api, alice):
    old, _ = two_versions(api, alice)
    listed = {file.path for file in installation.storage.files("accel")}
    installation.storage.put_if_absent(f"accel/{'ab' * 32}", b"replaced")
    assert collect(installation).files.number == 1
    assert {file.path for file in installation.storage.files("accel")} == listed
    delete_version(api, alice, "1")
    world.clock.advance(TOLD_S)
    renew(installation)
    collect(installation)
    assert installation.storage.size(f"accel/{old.digest.hex()}.json") is None


def test_after_a_reboot_what_was_condemned_is_found_by_its_file(installation, world, api, alice):
    disk = condemned_disk(installation, world, api, alice)
    with installation.database.write() as session:
        blocks.forget_unsynced(session)
    assert collect(installation).orphans.number == 3
    assert not any(stored(installation, digest) for digest in everything_of(disk))


def test_drafts_and_leases_of_what_was_released_end(installation, world, api, alice):
    two_versions(api, alice)
    collect(installation)
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Lease)) == 0
    world.clock.advance(8 * DAY_S)
    collect(installation)
    with installation.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Draft)) == 0


def test_a_database_that_was_copied_before_blocks_were_deleted_does_not_promise_them(world, alice, template):
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            disk = condemned_disk(installation, world, Api(http, template[2]), alice)
    saved = world.place.save_database()
    world.clock.advance(2 * DAY_S)
    with world.open() as installation:
        assert collect(installation).deleted.number == 3
    world.place.restore_database(saved)
    with world.open() as installation:
        assert state_of(installation, disk.blocks[0].digest) == "condemned"
        reconcile(installation)
        assert state_of(installation, disk.blocks[0].digest) is None
        with client_of(create_app(installation)) as http:
            api = Api(http, template[2])
            assert set(api.missing(api.draft("alice", "debian", "1"), everything_of(disk))) == everything_of(disk)


@pytest.fixture
def elsewhere(postgresql, s3, tmp_path, monkeypatch):
    """A repository on PostgreSQL and an S3 server."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    database, clock = postgresql.create(), MovableClock()
    urls = {"database_url": postgresql.url(database), "blocks_url": s3.url(s3.bucket())}
    made = initialise(tmp_path / "data", tmp_path / "keys", PASSPHRASE, "http://r.test", "test", clock=clock, **urls)
    publisher = Publisher("alice", clock=clock)
    here = Administration(tmp_path / "data", clock=clock, **urls)
    here.add_publisher("alice", [publisher.public_pem], tmp_path / "keys", PASSPHRASE)
    real = ObjectStorage.files

    def files(storage, prefix):
        for file in real(storage, prefix):
            yield replace(file, modified_s=clock() - 2 * DAY_S)

    monkeypatch.setattr(ObjectStorage, "files", files)
    settings = Settings(data_dir=tmp_path / "data", collection=CollectionSettings(every_s=0), **urls)
    with Installation.open(settings, clock) as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            yield installation, Api(http, made.admin_token), publisher
    postgresql.drop(database)


def test_on_postgresql_and_a_bucket_the_same_holds(elsewhere):
    installation, api, alice = elsewhere
    clock = installation.clock
    old, new = two_versions(api, alice)
    only_old = everything_of(old) - everything_of(new)
    loose = alice.build("debian", [block("loose"), block("shared")])
    draft = api.stage(alice, "debian", "3", loose)
    delete_version(api, alice, "1")
    clock.advance(TOLD_S)
    renew(installation)
    dry = collect(installation, dry_run=True)
    report = collect(installation)
    assert (report.condemned.number, report.drafts_expired) == (len(only_old) + 2, 1)
    assert dry.condemned == report.condemned
    again = api.draft("alice", "debian", "3")
    assert again != draft
    assert api.missing(again, everything_of(loose)) == []
    clock.advance(2 * DAY_S)
    strange = orphan(installation, "strange")
    report = collect(installation)
    assert (report.deleted.number, report.orphans.number) == (len(only_old), 1)
    assert not any(stored(installation, digest) for digest in only_old | {strange})
    assert all(stored(installation, digest) for digest in everything_of(new) | everything_of(loose))
    being_deleted(installation, [loose.blocks[0].digest])
    refused(api.upload(again, loose.records), 409, "BlocksBeingDeletedError")
    look_after(installation)
    assert api.upload(again, loose.records).status_code == 200
    scrubbed = scrub(installation)
    assert (scrubbed.damaged, scrubbed.missing, scrubbed.complete) == (0, 0, True)
