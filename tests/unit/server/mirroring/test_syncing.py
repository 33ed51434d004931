"""A replica: whole, servable at any moment, resumable, and unable to lie whatever its source does."""

import contextlib
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.fault_server import FaultServer, flip_bit, status, truncate

from oscirc_blockstore.accelerators import listing_path, parse_listing
from oscirc_blockstore.digests import block_path
from oscirc_blockstore.errors import (
    BusyError,
    ExpiredError,
    IntegrityError,
    RollbackError,
    SignatureRefusedError,
    StoreFullError,
    TransportError,
    UsageError,
)
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import manifest_path
from oscirc_remote.deadlines import Cancellation
from oscirc_server.mirroring import syncing
from oscirc_server.mirroring.syncing import worst

from .conftest import BLOCKS, disk


def served(world, mirror):
    """The mirror's tree as an upstream that is alone sees it."""
    return FaultServer(world.tree(mirror))


def test_a_replica_is_the_tree_of_its_source_file_by_file(world):
    world.publish()
    world.publish(version="2", content=disk("1", changed=[3]))
    world.publish("bob", "arch")
    world.accelerate("alice", "debian", world.manifests["alice/debian@2"])
    mirror = world.mirror()
    report = world.sync(mirror)
    tree, source = world.tree(mirror), world.repository.files
    old = {path for path in source if path not in tree}
    assert {path.split("/")[0] for path in old} <= {"metadata", "targets"}  # what newer metadata replaced
    assert {path: source[path] for path in tree} == tree
    assert (report.versions, report.completed, report.published) == (3, 3, True)
    assert report.blocks == sum(path.startswith("blocks/") for path in source)
    assert worst(report) is None


def test_a_workstation_reads_from_the_replica_alone(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    world.server.close()
    with served(world, mirror) as replica:
        assert world.read_whole(replica.url, "home:alice/debian") == BLOCKS


def test_a_second_run_asks_for_no_block_again_and_a_new_version_only_for_its_own(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    world.server.forget()
    assert world.sync(mirror).blocks == 0
    assert world.server.count("blocks/*") == 0
    world.publish(version="2", content=disk("1", changed=[7]))
    assert world.sync(mirror).blocks == 2  # the block and the one node above it
    assert sum(path.startswith("blocks/") for path in world.server.counts()) == 2


def test_the_timestamp_is_written_last_and_what_it_leads_to_is_there(world, monkeypatch):
    world.publish()
    mirror = world.mirror()
    written = []
    for name in ("put_if_absent", "replace", "replace_from"):
        real = getattr(type(mirror.storage), name)
        monkeypatch.setattr(
            type(mirror.storage),
            name,
            lambda self, path, raw, real=real: (written.append(path), real(self, path, raw))[1],
        )
    world.accelerate("alice", "debian", world.manifests["alice/debian@1"])
    world.sync(mirror)
    last = [path for path in written if not path.startswith(("targets/", "roots/"))]
    kinds = [path.split("/")[0] if not path.startswith("metadata") else path.split(".")[-2] for path in last]
    order = ["blocks", "manifests", "accel", "alice", "targets", "root", "snapshot", "metadata/timestamp"]
    assert sorted(kinds, key=order.index) == kinds
    assert written[-1] == "metadata/timestamp.json"


def test_a_partial_replica_has_all_metadata_and_the_blocks_of_what_was_asked_for(world):
    alice, bob = world.publish(), world.publish("bob", "arch", content=disk("bob"))
    other = world.publish("alice", "other", content=disk("other"))
    mirror = world.mirror()
    report = world.sync(mirror, ["alice/debian"])
    tree = world.tree(mirror)
    assert (report.versions, report.blocks) == (1, BLOCKS + 1)
    assert manifest_path(alice) in tree
    assert manifest_path(bob) not in tree
    assert manifest_path(other) not in tree
    assert sum(path.startswith("targets/") for path in tree) == 4  # three indexes and repository.json
    with served(world, mirror) as replica:
        assert world.read_whole(replica.url, "home:alice/debian") == BLOCKS
        with pytest.raises(TransportError):  # 404: the next mirror has it
            world.read_whole(replica.url, "home:bob/arch")


@pytest.mark.parametrize(("versions", "kept"), [("all", "123"), ("channels", "13"), ("latest", "3")])
def test_versions_are_chosen_by_policy(world, versions, kept):
    world.publish(version="1", channel="old")
    world.publish(version="2", channel="")
    world.publish(version="3")
    mirror = world.mirror()
    world.sync(mirror, versions=versions)
    tree = world.tree(mirror)
    here = [v for v in "123" if manifest_path(world.manifests[f"alice/debian@{v}"]) in tree]
    assert "".join(here) == kept


def test_a_tampered_block_is_not_stored_and_holds_up_no_other_version(world):
    bad, good = world.publish(version="1"), world.publish(version="2", content=disk("2"))
    victim = next(path for path in world.repository.files if path.startswith("blocks/"))  # of version 1
    world.server.inject(victim, flip_bit())
    mirror = world.mirror()
    report = world.sync(mirror)
    assert [name for name, _ in report.refused] == ["alice/debian@1"]
    assert isinstance(worst(report), IntegrityError)
    tree = world.tree(mirror)
    assert victim not in tree
    assert manifest_path(bad) not in tree
    assert manifest_path(good) in tree
    assert report.published
    world.server.heal()
    assert worst(world.sync(mirror)) is None
    assert world.tree(mirror)[victim] == world.repository.files[victim]


def test_another_source_of_the_same_repository_makes_up_for_a_lying_one(world):
    world.publish()
    with FaultServer(dict(world.repository.files)) as honest:
        world.server.inject("blocks/*", truncate())
        report = world.sync(world.mirror(others=[honest.url]))
    assert worst(report) is None
    assert report.blocks == BLOCKS + 1


def test_what_the_source_lacks_is_absent_here_too_and_said(world):
    world.publish(version="1")
    gone = world.publish(version="2", content=disk("2"))
    world.server.inject(manifest_path(gone), status(404))
    report = world.sync()
    assert [name for name, _ in report.absent] == ["alice/debian@2"]
    assert isinstance(worst(report), TransportError)
    assert report.published


def test_a_source_that_rolls_back_is_refused_and_nothing_changes(world):
    world.publish()
    old = dict(world.repository.files)
    world.publish(version="2", content=disk("2"))
    mirror = world.mirror()
    world.sync(mirror)
    before = world.tree(mirror)
    world.server.serve(old)
    with pytest.raises(RollbackError):
        world.sync(mirror)
    assert world.tree(mirror) == before


def test_a_source_that_forges_metadata_is_refused(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    before = world.tree(mirror)
    document = json.loads(world.repository.files["metadata/timestamp.json"])
    document["signed"]["version"] += 1
    world.repository.files["metadata/timestamp.json"] = json.dumps(document).encode()
    with pytest.raises(SignatureRefusedError):
        world.sync(mirror)
    assert world.tree(mirror) == before


def test_expired_metadata_is_not_mirrored(world):
    from datetime import timedelta

    world.publish()
    mirror = world.mirror()
    world.repository.timestamp.expires = world.repository.now - timedelta(days=1)
    world.repository.timestamp.version += 1
    world.repository.write_timestamp()
    with pytest.raises(ExpiredError):
        world.sync(mirror)


def test_a_role_of_rotated_keys_is_a_note_and_no_reason_to_copy_nothing(world):
    world.publish()
    world.publish("bob", "arch")
    role = world.repository.roles["bob"]
    role.version += 1
    world.repository.snapshot.meta["bob.json"].version = role.version
    world.repository.write_role("bob", world.repository.signers["alice"])
    world.repository.release()
    mirror = world.mirror()
    report = world.sync(mirror)
    assert report.versions == 1
    assert any("bob" in note for note in report.notes)


def test_every_root_since_the_first_is_here_for_readers_with_an_old_line(world):
    world.publish()
    old_line = world.line
    for _ in range(3):
        world.repository.rotate("timestamp")
        world.repository.release()
    mirror = world.mirror(line=world.repository.line(world.server.url))  # pins the newest
    world.sync(mirror)
    tree = world.tree(mirror)
    assert {f"metadata/{n}.root.json" for n in range(1, 5)} <= set(tree)
    assert f"roots/{old_line.partition('sha256=')[2]}.json" in tree


def test_an_older_root_that_does_not_lead_to_the_pinned_one_is_left_out(world):
    world.publish()
    forged = type(world.repository)()
    world.repository.rotate("timestamp")
    world.repository.release()
    world.repository.files["metadata/1.root.json"] = forged.root_bytes
    mirror = world.mirror(line=world.repository.line(world.server.url))
    world.sync(mirror)
    assert "metadata/1.root.json" not in world.tree(mirror)


def test_a_run_that_loses_its_network_publishes_nothing_and_the_next_goes_on(world, monkeypatch):
    monkeypatch.setattr("oscirc_server.mirroring.copying.PATIENCE_S", 3.0)
    world.publish()
    mirror = world.mirror()
    blocks = [path for path in world.repository.files if path.startswith("blocks/")]
    for path in blocks[BLOCKS // 2 : BLOCKS]:  # the last is the node above them
        world.server.inject(path, status(503))
    with pytest.raises(TransportError):
        world.sync(mirror, jobs=1)
    assert not any(path.startswith(("metadata/", "manifests/")) for path in world.tree(mirror))
    had = {path for path in world.tree(mirror) if path.startswith("blocks/")}
    assert had
    world.server.heal()
    world.server.forget()
    assert world.sync(mirror).published
    assert {path for path in world.server.counts() if path.startswith("blocks/")} == set(blocks) - had


def test_a_full_disk_ends_the_run_and_leaves_a_tree_that_can_be_served(world, monkeypatch):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    before = {path: raw for path, raw in world.tree(mirror).items() if path.startswith("metadata/")}
    world.publish(version="2", content=disk("2"))
    room = iter(range(5))
    real = os.write

    def write(descriptor, raw):
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if place.is_relative_to(mirror.root / "tmp") and next(room, None) is None:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, raw)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreFullError):
        world.sync(mirror)
    monkeypatch.undo()
    after = {path: raw for path, raw in world.tree(mirror).items() if path.startswith("metadata/")}
    assert after == before
    assert list((mirror.root / "tmp").iterdir()) == []
    assert world.sync(mirror).completed == 1


def test_a_run_that_is_called_off_ends_soon_and_publishes_nothing(world):
    world.publish()
    mirror = world.mirror()
    called_off = Cancellation()
    progress = syncing.Progress(step=lambda _: called_off.cancel("enough"))
    world.publish(version="2", content=disk("2"))
    with pytest.raises(TransportError, match="enough"):
        world.sync(mirror, cancellation=called_off, progress=progress)
    assert "metadata/timestamp.json" not in world.tree(mirror)


def test_two_runs_at_once_are_one_too_many(world):
    mirror = world.mirror()
    with mirror.only_sync(), pytest.raises(BusyError):
        world.sync(world.mirror())


def test_a_directory_mirrors_one_repository(world):
    world.mirror()
    other = type(world.repository)()
    with FaultServer(other.files) as server, pytest.raises(UsageError) as caught:
        world.mirror(line=other.line(server.url))
    assert "--from" in caught.value.hint


def test_accelerators_come_whole_or_are_not_listed(world):
    digest = world.publish()
    listing = world.accelerate("alice", "debian", digest, ("delta", "from-x", b"a pack" * 1000))
    world.server.inject(listing.accelerators[1].path, flip_bit())
    mirror = world.mirror()
    report = world.sync(mirror)
    here = parse_listing(world.tree(mirror)[listing_path(digest)])
    assert [each.kind for each in here.accelerators] == ["profile"]
    assert report.accelerators == 1
    assert any("from-x" in note for note in report.notes)
    world.server.heal()
    world.sync(mirror)
    here = parse_listing(world.tree(mirror)[listing_path(digest)])
    assert len(here.accelerators) == 2


def test_an_accelerator_longer_than_one_can_be_is_not_even_asked_for(world):
    digest = world.publish()
    listing = world.accelerate("alice", "debian", digest)
    huge = replace(listing.accelerators[0], length=1 << 40)
    world.repository.files[listing_path(digest)] = replace(listing, accelerators=(huge,)).serialise()
    world.server.forget()
    report = world.sync()
    assert world.server.count(huge.path) == 0
    assert any("longer" in note for note in report.notes)
    assert report.published


def test_a_source_that_fails_at_accelerators_alone_holds_nothing_up(world):
    for version in "123":
        world.accelerate("alice", "debian", world.publish(version=version, content=disk(version)))
    world.server.inject("accel/*", status(500))
    report = world.sync()
    assert report.published
    assert report.completed == 3
    assert world.server.count("accel/*") == 1  # the rest is left to the next run
    world.server.heal()
    assert world.sync().accelerators == 3


def test_who_lists_the_disk_of_another_image_keeps_nobody_from_having_it(world):
    digest = world.publish("zoe", "debian")
    world.publish("aaron", "own")
    index = ImageIndex("aaron", "stolen", (ImageVersion("1", digest, "2026-01-01T00:00:00Z"),))
    world.repository.put_index(index)
    mirror = world.mirror()
    report = world.sync(mirror)
    assert [name for name, _ in report.refused] == ["aaron/stolen@1"]
    assert manifest_path(digest) in world.tree(mirror)


def test_an_index_that_rotted_in_the_tree_is_fetched_again(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    (victim,) = (mirror.tree / "targets" / "alice").iterdir()
    good = victim.read_bytes()
    victim.write_bytes(good.replace(b"stable", b"staple"))
    report = world.sync(mirror)
    assert report.versions == 1
    assert victim.read_bytes() == good


def test_a_workstation_takes_from_another_source_what_a_partial_replica_lacks_and_calls_it_no_lie(world):
    from oscirc_remote.opening import open_source
    from oscirc_remote.pull import pull

    world.publish()
    world.publish("bob", "arch", content=disk("bob"))
    mirror = world.mirror()
    world.sync(mirror, ["alice"])
    manifest = world.repository.manifests[world.manifests["bob/arch@1"]]
    with served(world, mirror) as replica:
        source = open_source([replica.url, world.server.url], world.directory / "cache")
        assert pull(manifest, source, patience_s=20).positions == BLOCKS
        partial, _ = source.mirror_status()
        assert partial.missing
        assert not partial.lied
        source.close()


def test_a_power_cut_under_a_run_makes_the_next_one_verify_what_it_had_written(world, monkeypatch):
    world.publish()
    mirror = world.mirror()
    with contextlib.suppress(TransportError):
        called_off = Cancellation()
        world.sync(
            mirror, cancellation=called_off, progress=syncing.Progress(step=lambda _: called_off.cancel("power"))
        )
    victim = next(iter((mirror.tree / "blocks").rglob("*.zst")))
    victim.write_bytes(b"")  # what a file system may make of data that was never synced
    monkeypatch.setattr("oscirc_server.mirroring.unfinished._boot_id", lambda: "another boot")
    assert worst(world.sync(mirror)) is None
    path = str(victim.relative_to(mirror.tree))
    assert world.tree(mirror)[path] == world.repository.files[path]
    assert not mirror.under_way_file.exists()


def test_verify_finds_what_rotted_and_fetches_it_again(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    victim = next(iter((mirror.tree / "blocks").rglob("*.zst")))
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert world.sync(mirror).blocks == 0
    assert world.sync(mirror, verify_stored=True).blocks == 1
    assert victim.read_bytes() == good


def test_a_mirror_of_a_mirror_is_as_good_as_its_source(world):
    world.publish()
    world.accelerate("alice", "debian", world.manifests["alice/debian@1"])
    first = world.mirror()
    world.sync(first)
    with served(world, first) as replica:
        second = world.mirror("second", line=world.repository.line(replica.url))
        world.server.close()
        assert worst(world.sync(second)) is None
    assert world.tree(second) == world.tree(first)


def test_a_server_that_published_newer_metadata_meanwhile_is_not_set_back(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    newer = dict(world.tree(mirror))
    world.publish(version="2", content=disk("2"))
    document = world.repository.files["metadata/timestamp.json"]

    def meanwhile(_):
        mirror.storage.replace("metadata/timestamp.json", later)

    world.repository.release()
    later = world.repository.files["metadata/timestamp.json"]
    world.repository.files["metadata/timestamp.json"] = document
    report = world.sync(mirror, progress=syncing.Progress(step=meanwhile))
    assert not report.published
    assert world.tree(mirror)["metadata/timestamp.json"] == later != newer["metadata/timestamp.json"]


def test_blocks_shared_by_versions_are_stored_as_their_source_has_them(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    path = block_path(next(iter(world.repository.manifests.values())).root.digest)
    assert world.tree(mirror)[path] == world.repository.files[path]
