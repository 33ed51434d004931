"""Tables: one encoding of everything, refusals of what no tool makes, bounded walks."""

import pytest

from oscirc_blockstore import table
from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of, digest_of_zeros
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder, TableRoot

BLOCK = 65536


def build(geometry, blocks):
    nodes = {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position, digest in sorted(blocks.items()):
        builder.add(position, digest)
    return builder.finish(), nodes


def names(count, salt=b""):
    return [digest_of(salt + i.to_bytes(4, "big")) for i in range(count)]


@pytest.mark.parametrize(
    ("blocks", "depth"), [(1, 1), (1024, 1), (1025, 2), (1 << 20, 2), ((1 << 20) + 1, 3), (1 << 30, 3)]
)
def test_depth_is_the_least_that_covers_the_disk(blocks, depth):
    assert Geometry(blocks * BLOCK, BLOCK).depth == depth


@pytest.mark.parametrize(
    ("size", "block"), [(0, BLOCK), (-512, BLOCK), (513, BLOCK), (512, 32768), (512, 3 << 16), (1 << 47, BLOCK)]
)
def test_odd_geometries_are_refused(size, block):
    with pytest.raises(TableRefusedError):
        Geometry(size, block)


def test_an_empty_disk_is_the_zero_digest_and_no_nodes():
    root, nodes = build(Geometry(1 << 40, BLOCK), {})
    assert root == TableRoot(ZERO_DIGEST, 3)
    assert nodes == {}


def test_a_sparse_terabyte_costs_a_node_per_level():
    geometry = Geometry(1 << 40, BLOCK)
    root, nodes = build(geometry, {12_345_678: digest_of(b"x")})
    assert len(nodes) == 3
    assert list(table.iterate_blocks(geometry, root, nodes.__getitem__)) == [(12_345_678, digest_of(b"x"))]


def test_unchanged_subtrees_are_shared_and_differences_skip_them():
    geometry = Geometry(3000 * BLOCK, BLOCK)
    one = dict(enumerate(names(3000)))
    two = {**one, 2500: digest_of(b"new")}
    del two[7]
    old, old_nodes = build(geometry, one)
    new, new_nodes = build(geometry, two)
    assert len(set(old_nodes) & set(new_nodes)) == 1
    loaded = []

    def load(digest):
        loaded.append(digest)
        return {**old_nodes, **new_nodes}[digest]

    assert list(table.differences(geometry, old, new, load)) == [(7, one[7], ZERO_DIGEST), (2500, one[2500], two[2500])]
    assert len(loaded) == 6


def test_positions_must_ascend_and_fit():
    builder = TableBuilder(Geometry(10 * BLOCK, BLOCK), lambda *_: None)
    builder.add(3, digest_of(b"a"))
    for position in (3, 2, 10, -1):
        with pytest.raises(TableRefusedError):
            builder.add(position, digest_of(b"b"))


def test_a_range_of_positions_is_walked_without_the_rest():
    geometry = Geometry(5000 * BLOCK, BLOCK)
    blocks = dict(enumerate(names(5000)))
    root, nodes = build(geometry, blocks)
    loads = []
    found = dict(table.iterate_blocks(geometry, root, lambda d: loads.append(d) or nodes[d], 1000, 2050))
    assert found == {p: blocks[p] for p in range(1000, 2050)}
    assert len(loads) == 4


def refused(geometry, node, match, level=0, index=0):
    with pytest.raises(TableRefusedError, match=match):
        table.check_node(node, geometry, level, index)


def test_nodes_that_no_tool_makes_are_refused():
    geometry = Geometry(10 * BLOCK, BLOCK)
    good = b"".join(names(10)) + bytes(NODE_SIZE - 320)
    assert table.check_node(good, geometry, 0, 0) == good
    refused(geometry, good[:-1], "32767 bytes")
    refused(geometry, good + b"\0", "32769 bytes")
    refused(geometry, bytes(NODE_SIZE), "zero digest")
    refused(geometry, good[:-1] + b"\1", "past the end")
    refused(geometry, good[:320] + digest_of(b"y") + good[352:], "past the end")
    refused(geometry, digest_of_zeros(BLOCK) + good[32:], "zeros by their hash")
    inner = Geometry(1025 * BLOCK, BLOCK)
    refused(inner, digest_of(b"a") + digest_of_zeros(NODE_SIZE) + bytes(NODE_SIZE - 64), "zeros by their hash", level=1)


def test_a_digest_that_only_spans_two_entries_is_no_zero_block():
    geometry = Geometry(10 * BLOCK, BLOCK)
    forbidden = digest_of_zeros(BLOCK)
    node = bytes(31) + b"\1" + b"\2" * 8 + forbidden + b"\3" * 24
    assert table.check_node(node + bytes(NODE_SIZE - len(node)), geometry, 0, 0)


def test_a_wrong_depth_is_refused_by_every_walk():
    geometry = Geometry(10 * BLOCK, BLOCK)
    for walk in (
        lambda: list(table.iterate_blocks(geometry, TableRoot(ZERO_DIGEST, 2), {}.__getitem__)),
        lambda: table.contents(geometry, TableRoot(ZERO_DIGEST, 2), {}.__getitem__),
        lambda: table.look_up(geometry, TableRoot(ZERO_DIGEST, 2), 0, {}.__getitem__),
    ):
        with pytest.raises(TableRefusedError, match="depth"):
            walk()


def test_a_tree_that_repeats_one_child_everywhere_is_walked_once_a_level():
    geometry = Geometry(1 << 46, BLOCK)  # 2^30 positions
    leaf = digest_of(b"block") * 1024
    middle = digest_of(leaf) * 1024
    top = digest_of(middle) * 1024
    nodes = {digest_of(n): n for n in (leaf, middle, top)}
    visits = []

    def load(digest):
        visits.append(digest)
        return nodes[digest]

    found = table.contents(geometry, TableRoot(digest_of(top), 3), load)
    assert found.data_blocks == 1 << 30
    assert found.blocks == (digest_of(b"block"),)
    assert len(visits) == 3


def test_a_node_used_at_two_levels_is_judged_at_each():
    geometry = Geometry(1025 * BLOCK, BLOCK)
    inner = Digest(digest_of(b"x")) * 1024
    top = digest_of(inner) * 2 + bytes(NODE_SIZE - 64)  # the second half of the disk has one block, not 1024
    nodes = {digest_of(n): n for n in (inner, top)}
    with pytest.raises(TableRefusedError, match="past the end"):
        table.contents(geometry, TableRoot(digest_of(top), 2), nodes.__getitem__)
