"""A mirror signs nothing, so the one thing to watch is how long readers still take what it has."""

import pytest

from oscirc_blockstore.errors import NotFoundError
from oscirc_server.mirroring.state import state_of

from .conftest import BLOCKS

DAY_S = 86_400


def test_what_it_holds_is_told(world):
    world.accelerate("alice", "debian", world.publish())
    mirror = world.mirror(others=["http://other.example/repo"])
    report = world.sync(mirror)
    found = state_of(mirror.root)
    assert found.mirror_of == world.line
    assert found.sources == (world.server.url, "http://other.example/repo")
    assert (found.complete_versions, found.blocks, found.block_bytes) == (1, BLOCKS + 1, report.block_bytes)
    assert found.timestamp_version == world.repository.timestamp.version
    assert found.accelerator_bytes > 0
    assert found.alarm == ""


@pytest.mark.parametrize(("days", "alarm"), [(1, ""), (5.5, "expires in 36 hours"), (7.1, "has expired")])
def test_without_a_sync_it_says_in_time_that_its_metadata_ends(world, days, alarm):
    world.publish()
    mirror = world.mirror()
    world.sync(mirror)
    signed_s = world.repository.now.timestamp()
    found = state_of(mirror.root, lambda: signed_s + days * DAY_S)
    assert (alarm in found.alarm) if alarm else found.alarm == ""


def test_before_the_first_sync_nothing_is_served(world):
    mirror = world.mirror()
    found = state_of(mirror.root)
    assert (found.timestamp_version, found.expires_s, found.published_s) == (0, None, None)
    assert "nothing has been published" in found.alarm


def test_another_directory_is_no_mirror(tmp_path):
    with pytest.raises(NotFoundError):
        state_of(tmp_path)
