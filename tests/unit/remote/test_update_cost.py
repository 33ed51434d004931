"""What an update costs is known before it is fetched: exactly where lengths are stated, else as a guess that says so."""

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_remote.update_cost import GUESSED_SHARE, update_cost

from .test_pack_source import BLOCK, COPIED, EDITED, FROM, INDEX, NEW, OLD_DIGESTS, STORE, STRANGE, TO, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def cost(world, **options):
    return update_cost(TO.manifest, STORE.node, world.store.has, **options)


def test_what_is_here_costs_nothing(world):
    world.keep(*(digest_of(raw) for raw in NEW))
    found = cost(world)
    assert (found.missing_blocks, found.whole_bytes, found.pack_bytes) == (0, 0, 0)
    assert found.is_exact


def test_with_packs_the_cheaper_of_record_and_frame_is_counted(world):
    world.keep(*OLD_DIGESTS)
    found = cost(world, packs=world.source)
    records = [INDEX.records[digest] for digest in (digest_of(raw) for raw in NEW) if digest in INDEX.records]
    assert found.missing_blocks == len(records) == 4
    assert found.whole_bytes == sum(record.whole_length for record in records)
    assert found.pack_bytes == sum(
        record.length or record.whole_length * (not record.is_rebuildable) for record in records
    )
    assert (found.records, found.is_exact) == (3, True)
    assert INDEX.records[COPIED].length == 0


def test_without_old_blocks_packs_still_tell_what_frames_cost(world):
    found = cost(world, packs=world.source)
    assert found.pack_bytes == found.whole_bytes
    assert found.records == 0
    assert found.estimated == 1  # the block that both versions have is in no record


def test_lengths_that_are_stated_are_taken(world):
    world.keep(*OLD_DIGESTS)
    found = cost(world, length={EDITED: 500, STRANGE: 700}.get)
    assert found.whole_bytes == 500 + 700 + (2 * 600)
    assert (found.estimated, found.is_exact) == (2, False)


def test_where_nothing_is_known_it_is_a_guess(world):
    found = cost(world)
    assert found.whole_bytes == round(5 * GUESSED_SHARE * BLOCK)
    assert (found.estimated, found.data_blocks) == (5, 5)


def test_a_block_that_stands_twice_is_counted_once(world):
    twice = STORE.version([NEW[0], NEW[0]])
    found = update_cost(twice.manifest, STORE.node, world.store.has)
    assert (found.missing_blocks, found.data_blocks) == (1, 2)
    assert FROM.digest != twice.digest
