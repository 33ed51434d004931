"""What nothing names any more goes, a grace after it was first found so, and nothing else does."""

import pytest

from oscirc_blockstore.manifest import manifest_path
from oscirc_server.mirroring import syncing
from oscirc_server.mirroring.pruning import prune
from oscirc_server.mirroring.selection import Selection
from oscirc_server.mirroring.syncing import worst

from .conftest import BLOCKS, disk

DAY_S = 86_400.0


def sync_and_prune(world, mirror, selection, **options):
    with mirror.only_sync():
        report, state = syncing.sync(mirror, selection)
        assert worst(report) is None
        return prune(mirror, state, selection, **options)


def test_a_whole_replica_loses_nothing(world):
    digest = world.publish()
    world.publish("bob", "arch")
    world.accelerate("alice", "debian", digest)
    mirror = world.mirror()
    world.sync(mirror)
    before = world.tree(mirror)
    assert sync_and_prune(world, mirror, Selection(), grace_s=0).removed == 0
    assert world.tree(mirror) == before


def test_what_a_channel_left_behind_goes_after_the_grace_and_shared_blocks_stay(world):
    old = world.publish(version="1")
    world.accelerate("alice", "debian", old)
    selection = Selection.parse([], "channels")
    mirror = world.mirror()
    sync_and_prune(world, mirror, selection, now=lambda: 0.0)
    new = world.publish(version="2", content=disk("1", changed=[4]))
    world.accelerate("alice", "debian", new)
    found = sync_and_prune(world, mirror, selection, now=lambda: DAY_S, grace_s=3 * DAY_S)
    assert found.removed == 0
    assert found.waiting > 0
    assert manifest_path(old) in world.tree(mirror)
    assert sync_and_prune(world, mirror, selection, now=lambda: 3.9 * DAY_S, grace_s=3 * DAY_S).removed == 0
    gone = sync_and_prune(world, mirror, selection, now=lambda: 4 * DAY_S, grace_s=3 * DAY_S)
    assert (gone.removed, gone.waiting) == (found.waiting, 0)
    tree = world.tree(mirror)
    assert manifest_path(old) not in tree
    assert sum(path.startswith("blocks/") for path in tree) == BLOCKS + 1
    assert f"accel/{old.hex()}.json" not in tree
    assert sum(path.startswith("targets/alice/") for path in tree) == 1
    with world_server(tree) as replica:
        world.server.close()
        assert world.read_whole(replica.url, "home:alice/debian") == BLOCKS


def world_server(tree):
    from support.fault_server import FaultServer

    return FaultServer(tree)


def test_what_is_named_again_in_time_starts_a_new_grace(world):
    world.publish(version="1")
    mirror = world.mirror()
    both, none = Selection(), Selection.parse(["bob"])
    sync_and_prune(world, mirror, both, now=lambda: 0.0)
    sync_and_prune(world, mirror, none, now=lambda: 0.0, grace_s=DAY_S)
    sync_and_prune(world, mirror, both, now=lambda: DAY_S, grace_s=DAY_S)
    assert sync_and_prune(world, mirror, none, now=lambda: DAY_S, grace_s=DAY_S).removed == 0
    assert sync_and_prune(world, mirror, none, now=lambda: 2 * DAY_S, grace_s=DAY_S).removed > BLOCKS
    assert world.sync(mirror).completed == 1


def test_a_dry_run_removes_and_remembers_nothing(world):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    before = world.tree(mirror)
    found = sync_and_prune(world, mirror, Selection.parse(["bob"]), grace_s=0, dry_run=True)
    assert found.removed > BLOCKS
    assert world.tree(mirror) == before
    assert not mirror.condemned_file.exists()


@pytest.mark.parametrize("line", ["", "yesterday blocks/x\n", "\xff\xfe\n", "12\n"])
def test_a_damaged_memory_only_costs_a_new_grace(world, line):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    mirror.condemned_file.write_text(line, encoding="latin-1")
    assert sync_and_prune(world, mirror, Selection.parse(["bob"])).removed == 0


def test_roots_stay(world):
    world.publish()
    world.repository.rotate("timestamp")
    world.repository.release()
    mirror = world.mirror()
    world.sync(mirror)
    sync_and_prune(world, mirror, Selection(), grace_s=0)
    assert {"metadata/1.root.json", "metadata/2.root.json"} <= set(world.tree(mirror))
