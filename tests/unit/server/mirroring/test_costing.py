"""What a sync would fetch is told beforehand, to the byte where lengths are listed, and nothing is stored for it."""

from oscirc_server.mirroring.costing import cost
from oscirc_server.mirroring.selection import Selection

from .conftest import BLOCK_SIZE, BLOCKS, disk


def test_with_lengths_the_bytes_are_those_that_the_sync_then_fetches(world):
    digest = world.publish()
    listing, total = world.accelerate_lengths("alice", "debian", digest)
    mirror = world.mirror()
    found = cost(mirror, Selection(), jobs=2)
    assert (found.versions, found.lacking, found.blocks, found.block_bytes) == (1, 1, BLOCKS + 1, total)
    assert found.unknown_blocks == 0
    assert found.accelerators == len(listing.accelerators)
    assert not [path for path in world.tree(mirror) if not path.startswith("roots/")]
    report = world.sync(mirror)
    assert (report.blocks, report.block_bytes) == (found.blocks, found.block_bytes)
    assert (report.accelerators, report.accelerator_bytes) == (found.accelerators, found.accelerator_bytes)
    again = cost(mirror, Selection(), jobs=2)
    assert (again.lacking, again.blocks, again.accelerators) == (0, 0, 0)


def test_without_lengths_it_is_the_most_that_it_can_be(world):
    world.publish()
    found = cost(world.mirror(), Selection(), jobs=2)
    assert found.unknown_blocks == BLOCKS + 1
    assert found.block_bytes == BLOCKS * BLOCK_SIZE + 32_768


def test_what_versions_share_is_counted_once(world):
    world.publish(version="1")
    world.publish(version="2", content=disk("1", changed=[3]))
    assert cost(world.mirror(), Selection(), jobs=2).blocks == BLOCKS + 1 + 2
