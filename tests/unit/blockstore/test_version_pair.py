"""What two versions differ in is found at the cost of what differs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import TableRefusedError, UsageError
from oscirc_blockstore.table import DIGEST_SIZE, NODE_SIZE, iterate_blocks
from oscirc_blockstore.version_pair import changes
from tests.unit.blockstore.versions import BLOCK, Store


def block(number):
    return random.Random(number).randbytes(16) * (BLOCK // 16) if number else bytes(BLOCK)


def patched(change, store):
    node = bytearray(NODE_SIZE if change.old == ZERO_DIGEST else 0) or bytearray(store.held[change.old])
    for slot, digest in change.entries:
        node[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE] = digest
    return bytes(node)


places = st.dictionaries(st.sampled_from([0, 1, 5, 1023, 1024, 1025, 5000, 1 << 20]), st.integers(1, 4), min_size=1)


@settings(max_examples=60, deadline=None)
@given(places, places)
def test_every_new_node_comes_from_its_patch_and_every_new_block_is_named(one, two):
    store = Store()
    old = store.version({at: block(number) for at, number in one.items()})
    new = store.version({at: block(number) for at, number in two.items()})
    found = changes(old.manifest, new.manifest, store.node)
    for change in found.nodes.values():
        assert digest_of(patched(change, store)) == change.new
    before = dict(iterate_blocks(old.manifest.geometry, old.manifest.root, store.node))
    after = dict(iterate_blocks(new.manifest.geometry, new.manifest.root, store.node))
    assert set(found.new) == {digest for at, digest in after.items() if before.get(at) != digest}
    assert set(found.old) == {digest for at, digest in before.items() if after.get(at) != digest}


def test_equal_subtrees_are_not_loaded():
    store = Store()
    same = {at: block(1 + at % 7) for at in range(1024, 4096)}
    old, new = store.version({0: block(8), **same}), store.version({0: block(9), **same})
    store.loads = {}
    found = changes(old.manifest, new.manifest, store.node)
    assert (list(found.new), list(found.old)) == ([digest_of(block(9))], [digest_of(block(8))])
    assert len(store.loads) == 4  # two roots, two leaves


def test_the_same_version_differs_in_nothing():
    store = Store()
    version = store.version([block(1)])
    assert changes(version.manifest, version.manifest, store.node).nodes == {}
    assert store.loads == {}


def test_a_tree_that_repeats_itself_costs_no_more_than_what_is_distinct():
    store = Store()
    wide = {at: block(1) for at in range(0, 1 << 21, 1024)}
    old, new = store.version({0: block(2)}, disk_size=BLOCK << 21), store.version(wide)
    store.loads = {}
    changes(old.manifest, new.manifest, store.node)
    assert sum(store.loads.values()) < 20


def test_versions_that_differ_in_too_much_are_refused():
    store = Store()
    old, new = store.version([block(1)]), store.version([block(n) for n in range(2, 6)])
    with pytest.raises(UsageError):
        changes(old.manifest, new.manifest, store.node, most=3)


def test_blocks_of_two_sizes_are_not_compared():
    store = Store()
    with pytest.raises(UsageError):
        changes(
            store.version([block(1)]).manifest,
            store.version([bytes([1]) * 2 * BLOCK], block_size=2 * BLOCK).manifest,
            store.node,
        )


def test_a_hostile_node_is_refused():
    store = Store()
    old, new = store.version([block(1)]), store.version([block(2), block(3)])
    store.held[new.manifest.root.digest] = b"\1" * NODE_SIZE
    with pytest.raises(TableRefusedError):
        changes(old.manifest, new.manifest, store.node)
