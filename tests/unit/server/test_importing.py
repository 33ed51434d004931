"""Imports: what TUF permits is taken over without anybody signing anew, of the rest the blocks come, and nothing else."""

import shutil
import time
from dataclasses import replace

import pytest
from support.fault_server import FaultServer
from support.pictures import picture
from tuf.api.exceptions import RepositoryError

from oscirc_blockstore import screenshot
from oscirc_blockstore.accelerators import PROFILE, listing_path, parse_listing
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import (
    LocalError,
    NotFoundError,
    OscircError,
    SignatureRefusedError,
    UsageError,
)
from oscirc_blockstore.manifest import manifest_path
from oscirc_blockstore.profile import Profile
from oscirc_server.app import create_app
from oscirc_server.importing.administration import run_import
from oscirc_server.installation import Installation
from oscirc_server.models import Draft
from oscirc_server.reconciling import reconcile
from oscirc_server.services import screenshots, tokens
from oscirc_server.settings import Settings

from .in_process import client_of
from .server_world import DAY_S, PASSPHRASE, Api, MovableClock, block, fork, make_world
from .tuf_client import updater

CONTENTS = {"1": ["a", "b", "c"], "2": ["a", "x", "c"]}


def disk_of(publisher, version, image="debian"):
    return publisher.build(image, [block(text) for text in CONTENTS[version]])


def publish(world, publisher, version, image="debian", token=None):
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            answer = Api(http, token or world.made.admin_token).publish(
                publisher, image, version, disk_of(publisher, version, image)
            )
            assert answer.status_code == 200, answer.text


def profile_of(world, publisher, version, disk):
    put(world, publisher, version, f"{PROFILE}/boot", Profile(disk.digest, "boot", 1, (0, 2)).serialise())


def put(world, publisher, version, what, raw):
    with world.open() as installation, client_of(create_app(installation)) as http:
        path = f"images/{publisher.name}/debian/versions/{version}/accelerators/{what}"
        answer = Api(http, world.made.admin_token).call("PUT", f"{path}?sha256={digest_of(raw).hex()}", content=raw)
        assert answer.status_code in (200, 201, 204), answer.text


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository of two publishers and three versions, one of them with a profile and a screenshot."""
    directory = tmp_path_factory.mktemp("old")
    world = make_world(directory, MovableClock(time.time()))
    alice, bob = world.add_publisher("alice"), world.add_publisher("bob")
    for version in ("1", "2"):
        publish(world, alice, version)
    publish(world, bob, "1", "arch")
    profile_of(world, alice, "2", disk_of(alice, "2"))
    shown = screenshot.build(disk_of(alice, "2").digest, "a prompt", picture())
    put(world, alice, "2", "screenshot/console", shown)
    return world, alice, bob, directory


@pytest.fixture
def old(template, tmp_path):
    """A copy of it, to be broken."""
    world, alice, bob, directory = template
    shutil.copytree(directory, tmp_path / "old")
    data = tmp_path / "old" / "data"
    copied = replace(world, data=data, keys=tmp_path / "old" / "offline", place=world.place.copy(data))
    return copied, fork(alice), fork(bob)


@pytest.fixture
def fresh(old, tmp_path):
    """A data directory without a repository, with the old server's online keys."""
    world, _, _ = old
    data = tmp_path / "fresh"
    shutil.copytree(world.data / "keys", data / "keys")
    return data


def opened(world, data):
    return Installation.open(replace(world.settings, data_dir=data), world.clock)


def imported(world, source, data, **options):
    return run_import(str(source), data, clock=world.clock, **options)


def snapshot_of(tree, state, root):
    client = updater(tree, state, root)
    client.refresh()
    return client


def files(tree):
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_a_lost_database_is_made_again_of_the_tree_and_nobody_signs_but_the_server(old, fresh, tmp_path):
    world, alice, _ = old
    root = (world.tree / "metadata/1.root.json").read_bytes()
    before = snapshot_of(world.tree, tmp_path / "reader", root)._trusted_set.snapshot.version
    done = imported(world, world.data, fresh)
    assert done.report.relation == "new"
    assert done.report.taken_over == {"alice": 2, "bob": 1}
    assert (done.report.versions, done.report.incomplete, done.report.missing) == (3, [], [])
    assert done.remote_url == world.made.remote_url
    client = snapshot_of(fresh / "tree", tmp_path / "reader", root)  # the same reader, no rollback
    assert client._trusted_set.snapshot.version > before
    assert client.get_targetinfo("alice/debian.json") is not None
    here, there = files(fresh / "tree"), files(world.tree)
    for prefix in ("blocks/", "manifests/", "roots/"):
        assert {p: r for p, r in here.items() if p.startswith(prefix)} == {
            p: r for p, r in there.items() if p.startswith(prefix)
        }
    listing = parse_listing(here[listing_path(disk_of(alice, "2").digest)])
    assert listing.find(PROFILE, "boot") is not None
    with opened(world, fresh) as installation, installation.database.read() as session:
        shown = screenshots.by_name(session, disk_of(alice, "2").digest)
    assert shown["console"].alt == "a prompt"


def test_what_was_made_again_goes_on_as_before(old, fresh):
    world, alice, _ = old
    done = imported(world, world.data, fresh)
    moved = replace(world, data=fresh, made=replace(world.made, admin_token=done.admin_token))
    CONTENTS["3"] = ["a", "x", "z"]
    publish(moved, alice, "3", token=done.admin_token)
    with moved.open() as installation:
        reconcile(installation)


def test_the_tree_of_the_lost_database_itself_can_be_the_source(old):
    """The data directory as it is, its database gone: blocks are read again where they stand."""
    world, _, _ = old
    for name in ("oscirc.db", "oscirc.db-wal", "oscirc.db-shm"):
        (world.data / name).unlink(missing_ok=True)
    before = {
        p: r for p, r in files(world.tree).items() if p.startswith(("blocks/", "accel/")) and not p.endswith(".json")
    }
    done = imported(world, world.data, world.data)
    assert done.report.relation == "new"
    assert done.report.taken_over == {"alice": 2, "bob": 1}
    after = files(world.tree)
    assert {path: after.get(path) for path in before} == before


def test_a_block_that_rotted_is_found_and_its_version_named(old, fresh):
    world, alice, _ = old
    victim = world.tree / block_path(disk_of(alice, "2").blocks[1].digest)  # of version 2 alone
    raw = victim.read_bytes()
    victim.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    report = imported(world, world.data, fresh).report
    assert report.incomplete == ["alice/debian@2"]
    assert len(report.blocks.lacking) == 1
    assert not (fresh / "tree" / block_path(report.blocks.lacking[0])).exists()
    victim.write_bytes(raw)
    again = imported(world, world.data, fresh).report
    assert (again.relation, again.incomplete, again.blocks.stored) == ("same", [], 1)


def test_an_import_that_was_interrupted_goes_on(old, fresh, monkeypatch):
    from oscirc_server.importing import copying

    world, _, _ = old
    real, turns = copying.BlockImporter.bring, iter([True, False])

    def bring(self, manifest):
        if not next(turns, True):
            raise KeyboardInterrupt
        return real(self, manifest)

    monkeypatch.setattr(copying.BlockImporter, "bring", bring)
    with pytest.raises(KeyboardInterrupt):
        imported(world, world.data, fresh)
    monkeypatch.undo()
    with opened(world, fresh) as installation, installation.database.read() as session:
        assert session.query(Draft).count() == 1  # it leases what came, for thirty days
    report = imported(world, world.data, fresh).report
    assert report.relation == "new"
    assert report.blocks.present > 0
    assert report.taken_over == {"alice": 2, "bob": 1}


def test_without_online_keys_nothing_is_begun_and_it_is_said_what_to_do(old, tmp_path):
    world, _, _ = old
    with pytest.raises(UsageError, match="keys") as caught:
        imported(world, world.data, tmp_path / "empty")
    assert "snapshot.pem" in caught.value.hint
    assert not list((tmp_path / "empty" / "tree").rglob("*.zst"))


def test_where_online_keys_are_lost_the_root_key_names_new_ones(old, tmp_path):
    world, alice, _ = old
    data = tmp_path / "empty"
    root = (world.tree / "metadata/1.root.json").read_bytes()
    snapshot_of(world.tree, tmp_path / "reader", root)
    done = imported(world, world.data, data, keys_dir=world.keys, passphrase=PASSPHRASE)
    assert done.report.taken_over == {"alice": 2, "bob": 1}
    assert (data / "tree/metadata/2.root.json").exists()
    client = snapshot_of(data / "tree", tmp_path / "reader", root)
    assert client.get_targetinfo("alice/debian.json") is not None
    moved = replace(world, data=data, made=replace(world.made, admin_token=done.admin_token))
    CONTENTS["3"] = ["a", "x", "z"]
    publish(moved, alice, "3", token=done.admin_token)


def test_another_passphrase_ends_it_before_anything_is_copied(old, tmp_path):
    world, _, _ = old
    with pytest.raises(OscircError):
        imported(world, world.data, tmp_path / "empty", keys_dir=world.keys, passphrase="not it")
    assert not list((tmp_path / "empty" / "tree").rglob("*.zst"))


def test_over_http_the_root_must_be_vouched_for(old, fresh):
    world, _, _ = old
    digest = world.made.root_digest
    with FaultServer(files(world.tree)) as server:
        with pytest.raises(UsageError, match="vouches"):
            imported(world, server.url, fresh)
        with pytest.raises(SignatureRefusedError):
            imported(world, f"{server.url}#sha256={'0' * 64}", fresh)
        report = imported(world, f"{server.url}#sha256={digest}", fresh).report
    assert report.taken_over == {"alice": 2, "bob": 1}


@pytest.fixture
def other(tmp_path):
    """A repository of its own, with another root."""
    return make_world(tmp_path / "other", MovableClock(time.time()))


def delegate(world, publisher):
    world.administration.add_publisher(publisher.name, [publisher.public_pem], world.keys, PASSPHRASE)


def test_another_root_that_delegates_to_the_same_keys_takes_the_role_over_as_it_is_signed(old, other, tmp_path):
    world, alice, _ = old
    delegate(other, alice)
    report = imported(other, world.data, other.data).report
    assert report.relation == "other"
    assert report.taken_over == {"alice": 2}
    assert "bob" in report.not_taken_over
    client = snapshot_of(other.tree, tmp_path / "reader", (other.tree / "metadata/1.root.json").read_bytes())
    assert client.get_targetinfo("alice/debian.json") is not None
    assert (other.tree / "metadata/2.alice.json").read_bytes() == (world.tree / "metadata/2.alice.json").read_bytes()
    CONTENTS["3"] = ["a", "x", "z"]
    publish(other, alice, "3")  # role version 3 comes next here, too
    assert imported(other, world.data, other.data).report.taken_over == {}  # older than what is here now


def test_another_root_and_other_keys_leave_blocks_so_that_publishing_again_sends_nothing(old, other):
    world, alice, _ = old
    report = imported(other, world.data, other.data).report
    assert report.taken_over == {}
    assert set(report.not_taken_over) == {"alice", "bob"}
    assert not (other.tree / manifest_path(disk_of(alice, "1").digest)).exists()
    someone = replace(other.add_publisher("carol"))
    disk = someone.build("debian", [block(text) for text in CONTENTS["2"]])
    with other.open() as installation, client_of(create_app(installation)) as http:
        api = Api(http, other.made.admin_token)
        draft = api.draft("carol", "debian", "2")
        assert api.missing(draft, [record.digest for record in disk.records]) == []


def test_a_publisher_whose_key_here_is_another_one_signs_anew(old, other):
    world, _, _ = old
    other.add_publisher("alice")
    report = imported(other, world.data, other.data).report
    assert report.taken_over == {}
    assert "alice" in report.not_taken_over


def test_a_role_that_forgets_what_was_released_here_is_not_taken_over(old, other):
    world, alice, _ = old
    delegate(other, alice)
    elsewhere = fork(alice)
    elsewhere.role_version, elsewhere.indexes = 0, {}
    CONTENTS["9"] = ["q"]
    publish(other, elsewhere, "9")
    report = imported(other, world.data, other.data).report
    assert report.taken_over == {}
    assert "forgets" in report.not_taken_over["alice"]


def test_a_role_that_has_expired_is_not_taken_over(old, other):
    world, alice, _ = old
    delegate(other, alice)
    other.clock.advance(301 * DAY_S)
    report = imported(other, world.data, other.data).report
    assert "expired" in report.not_taken_over["alice"]


def test_a_role_whose_disks_lack_parts_is_not_taken_over(old, other):
    world, alice, _ = old
    delegate(other, alice)
    (world.tree / block_path(disk_of(alice, "2").blocks[1].digest)).unlink()
    report = imported(other, world.data, other.data).report
    assert report.incomplete == ["alice/debian@2"]
    assert "lacks parts" in report.not_taken_over["alice"]


def test_a_role_that_jumps_is_not_taken_over(old, other, monkeypatch):
    world, alice, _ = old
    delegate(other, alice)
    monkeypatch.setattr("oscirc_server.adoption.MOST_AHEAD", 1)
    assert "at version 0 here, and at 2 there" in imported(other, world.data, other.data).report.not_taken_over["alice"]


def test_forged_metadata_is_refused_and_changes_nothing(old, fresh):
    world, _, _ = old
    forged = make_world(fresh.parent / "forged", world.clock)
    shutil.copy(forged.tree / "metadata/timestamp.json", world.tree / "metadata/timestamp.json")
    with pytest.raises(SignatureRefusedError):
        imported(world, world.data, fresh)
    assert not list((fresh / "tree").rglob("*.zst"))


def test_a_role_that_the_snapshot_does_not_mean_is_missing(old, fresh):
    world, _, _ = old
    path = world.tree / "metadata/1.bob.json"
    path.write_bytes(path.read_bytes().replace(b"terminating", b"terminatinG") + b" ")
    with pytest.raises(LocalError, match="lacks signed metadata"):
        imported(world, world.data, fresh)


def test_a_directory_that_is_no_tree_is_refused(old, fresh, tmp_path):
    world, _, _ = old
    with pytest.raises(NotFoundError):
        imported(world, tmp_path / "nothing", fresh)
    with pytest.raises(UsageError):
        imported(world, world.data, fresh, root="xyz")


def test_a_dry_run_says_what_would_come_and_copies_nothing(old, other, fresh):
    world, alice, _ = old
    delegate(other, alice)
    before = files(other.tree)
    report = imported(other, world.data, other.data, dry_run=True).report
    assert report.taken_over == {"alice": 2}
    assert files(other.tree) == before
    report = imported(world, world.data, fresh, dry_run=True).report
    assert (report.relation, report.taken_over) == ("new", {"alice": 2, "bob": 1})
    assert files(fresh / "tree") == {}


def test_a_mirror_is_a_source_as_well(old, fresh, tmp_path):
    """The server's machine is gone with its disk; a replica and the keys are left."""
    from oscirc_server.mirroring import syncing
    from oscirc_server.mirroring.directory import MirrorDirectory
    from oscirc_server.mirroring.selection import Selection

    world, _, _ = old
    with FaultServer(files(world.tree)) as server:
        mirror = MirrorDirectory.open(tmp_path / "mirror", f"{server.url}#sha256={world.made.root_digest}")
        with mirror.only_sync():
            syncing.sync(mirror, Selection())
    report = imported(world, mirror.root, fresh).report
    assert report.taken_over == {"alice": 2, "bob": 1}


def test_from_a_partial_replica_comes_what_it_has_and_the_rest_from_another_source(old, fresh, tmp_path):
    from oscirc_server.services import catalog

    world, _, bob = old
    shutil.copytree(world.tree, tmp_path / "partial")
    lacking = manifest_path(disk_of(bob, "1", "arch").digest)
    (tmp_path / "partial" / lacking).unlink()
    report = imported(world, tmp_path / "partial", fresh).report
    assert report.missing == [lacking]

    def listed():
        with opened(world, fresh) as installation, installation.database.read() as session:
            return [f"{each.publisher}/{each.image}" for each in catalog.images(session).images]

    assert listed() == ["alice/debian"]
    report = imported(world, world.data, fresh).report
    assert (report.relation, report.missing, report.incomplete) == ("same", [], [])
    assert listed() == ["alice/debian", "bob/arch"]
    CONTENTS["3"] = ["a", "x", "z"]
    with opened(world, fresh) as installation:
        token = tokens.create(installation, ["publish:bob"], "bob", None, actor="test")[1]
    publish(replace(world, data=fresh), bob, "3", "arch", token=token)


def test_an_old_copy_of_the_tree_makes_readers_refuse_and_not_be_fooled(old, fresh, tmp_path):
    world, alice, _ = old
    root = (world.tree / "metadata/1.root.json").read_bytes()
    shutil.copytree(world.tree, tmp_path / "copy")
    CONTENTS["3"] = ["a", "x", "z"]
    publish(world, alice, "3")
    reader = tmp_path / "reader"
    snapshot_of(world.tree, reader, root).get_targetinfo("alice/debian.json")
    imported(world, tmp_path / "copy", fresh)
    replace(world, data=fresh).administration.resign_online(above=100)
    with pytest.raises(RepositoryError):
        snapshot_of(fresh / "tree", reader, root).get_targetinfo("alice/debian.json")


def test_settings_name_where_it_goes(old, fresh, tmp_path):
    world, _, _ = old
    store = tmp_path / "elsewhere"
    report = imported(world, world.data, fresh, blocks_url=f"file://{store}").report
    assert report.taken_over == {"alice": 2, "bob": 1}
    assert (store / "metadata/timestamp.json").exists()
    assert Settings(data_dir=fresh).layout.database.exists()


def test_from_a_directory_and_sqlite_to_a_bucket_and_postgresql(old, fresh, postgresql, s3, tmp_path, monkeypatch):
    world, _, _ = old
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, database = s3.bucket(), postgresql.create()
    url = s3.url(bucket)
    try:
        done = imported(world, world.data, fresh, database_url=postgresql.url(database), blocks_url=url)
        assert done.report.taken_over == {"alice": 2, "bob": 1}
        assert done.report.incomplete == []
        again = imported(world, world.data, fresh, database_url=postgresql.url(database), blocks_url=url).report
        assert (again.relation, again.blocks.stored) == ("same", 0)
        there = {p: r for p, r in files(world.tree).items() if p.startswith("blocks/")}
        stored = files(s3.root / bucket)
        assert {path: stored.get(path) for path in there} == there
    finally:
        postgresql.drop(database)
