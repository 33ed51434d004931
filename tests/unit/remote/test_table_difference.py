"""Two tables, position by position, against the same question asked of plain dictionaries."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.errors import IntegrityError, UsageError
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableBuilder, TableRoot
from oscirc_remote import table_difference
from oscirc_remote.table_difference import Change, Nodes, compare

BLOCK = 65536


def disk(count, positions, nodes, block_size=BLOCK):
    geometry = Geometry(count * block_size, block_size)
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position, number in sorted(positions.items()):
        builder.add(position, digest_of(b"%d" % number))
    return Manifest("alice", "debian", geometry, builder.finish(), len(positions), SystemFacts())


def expected(one, two, count):
    changes = []
    for position in range(count):
        old, new = one.get(position), two.get(position)
        if old == new:
            changes.append(Change.ZERO if new is None else Change.UNCHANGED)
        elif new is None:
            changes.append(Change.REMOVED)
        else:
            changes.append(Change.NEW if old is None else Change.CHANGED)
    return changes


def compared(old, new, nodes, resident=None):
    told = []

    def sink(position, change, count):
        assert position == len(told)
        told.extend([change] * count)

    load = nodes.__getitem__
    found = compare(old, new, Nodes(load, load, nodes.get if resident is None else resident), sink)
    assert Counter(told) == +found.positions
    return found, told


COUNTS = st.sampled_from([1, 5, FANOUT, FANOUT + 1, 3 * FANOUT])


@given(COUNTS, COUNTS, st.data())
@settings(deadline=None, max_examples=60)
def test_it_says_of_every_position_what_became_of_it(old_count, new_count, data):
    blocks = st.dictionaries(st.integers(0, 3 * FANOUT - 1), st.integers(1, 30), max_size=25)
    one = {at: number for at, number in data.draw(blocks).items() if at < old_count}
    two = {at: number for at, number in data.draw(blocks).items() if at < new_count}
    two |= {at: number for at, number in one.items() if at % 3 and at < new_count}
    nodes = {}
    old, new = disk(old_count, one, nodes), disk(new_count, two, nodes)
    found, told = compared(old, new, nodes)
    assert told == expected(one, two, max(old_count, new_count))
    assert found.fresh_blocks == {digest_of(b"%d" % number) for number in set(two.values()) - set(one.values())}


def test_what_both_share_is_not_loaded():
    nodes = {}
    one = {0: 1, FANOUT: 2, 2 * FANOUT: 3}
    old, new = disk(3 * FANOUT, one, nodes), disk(3 * FANOUT, {**one, FANOUT: 4}, nodes)
    loaded = []

    def load(digest):
        loaded.append(digest)
        return nodes[digest]

    found = compare(old, new, Nodes(load, load, lambda _: None))
    assert len(loaded) == 4  # two roots, two leaves of the middle
    assert found.positions == {Change.UNCHANGED: 2 * FANOUT, Change.CHANGED: 1, Change.ZERO: FANOUT - 1}
    assert (len(found.fresh_nodes), len(found.gone_nodes)) == (2, 2)
    assert found.fresh_blocks == {digest_of(b"4")}


def test_a_block_that_only_moved_is_not_fresh_where_it_stood_in_a_leaf_that_is_here():
    nodes = {}
    one = {0: 1, FANOUT: 2}
    old, new = disk(2 * FANOUT, one, nodes), disk(2 * FANOUT, {**one, FANOUT: 1}, nodes)
    assert compared(old, new, nodes)[0].fresh_blocks == set()
    assert compared(old, new, nodes, resident=lambda _: None)[0].fresh_blocks == {digest_of(b"1")}


def test_children_that_differ_are_prepared_together():
    nodes, prepared = {}, []
    one = {0: 1, FANOUT: 2, 2 * FANOUT: 3}
    old, new = disk(3 * FANOUT, one, nodes), disk(3 * FANOUT, {0: 5, FANOUT: 2, 2 * FANOUT: 6}, nodes)
    load = nodes.__getitem__
    compare(
        old, new, Nodes(load, load, lambda _: None, lambda *wanted: prepared.append([len(each) for each in wanted]))
    )
    assert prepared == [[2, 2]]


def test_the_same_disk_twice_loads_nothing():
    nodes = {}
    old = disk(3, {0: 1}, nodes)
    found = compare(old, old, Nodes({}.__getitem__, {}.__getitem__, lambda _: None))
    assert (found.positions, found.fresh_nodes) == ({Change.UNCHANGED: 3}, set())


def test_blocks_of_two_sizes_are_not_compared():
    nodes = {}
    with pytest.raises(UsageError, match="cannot be compared"):
        compare(disk(3, {0: 1}, nodes), disk(3, {0: 1}, nodes, 2 * BLOCK), Nodes(nodes.get, nodes.get, nodes.get))


def test_a_table_that_repeats_itself_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr(table_difference, "MAX_LEAVES", 50)
    nodes = {}

    def repeating(name):
        leaf = digest_of(name) * FANOUT
        nodes[digest_of(leaf)] = leaf
        top = digest_of(leaf) * FANOUT
        nodes[digest_of(top)] = top
        return Manifest(
            "alice", "debian", Geometry(FANOUT * FANOUT * BLOCK, BLOCK), TableRoot(digest_of(top), 2), 1, SystemFacts()
        )

    with pytest.raises(IntegrityError, match="more than can be shown"):
        compared(repeating(b"a"), repeating(b"b"), nodes)


def test_a_node_that_no_publishers_tool_makes_is_refused():
    nodes = {}
    old = disk(3, {0: 1}, nodes)
    beyond = Digest(digest_of(b"x") * 4 + bytes(NODE_SIZE - 128))  # names a fourth block on a disk of three
    nodes[digest_of(beyond)] = beyond
    new = Manifest("alice", "debian", old.geometry, TableRoot(digest_of(beyond), 1), 3, SystemFacts())
    with pytest.raises(IntegrityError, match="past the end"):
        compared(old, new, nodes)
    assert ZERO_DIGEST not in nodes
