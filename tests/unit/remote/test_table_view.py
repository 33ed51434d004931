import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableBuilder, TableRoot
from oscirc_remote.table_view import TableView, entries

BLOCK_SIZE = 1 << 16
MANY = 3 * FANOUT + 5  # positions: a table of depth 2


def build(positions, count):
    stored = {}
    geometry = Geometry(count * BLOCK_SIZE, BLOCK_SIZE)
    builder = TableBuilder(geometry, stored.__setitem__)
    for position in sorted(positions):
        builder.add(position, name(position))
    return geometry, builder.finish(), stored


def name(position):
    return digest_of(position.to_bytes(8, "big"))


@settings(max_examples=50)
@given(st.sets(st.integers(0, MANY - 1), max_size=30), st.integers(1, 3))
def test_every_position_has_its_digest_however_little_is_remembered(positions, remembered):
    geometry, root, stored = build(positions, MANY)
    view = TableView(geometry, root, remembered_nodes=remembered)
    for position in {*positions, 0, MANY - 1, FANOUT}:
        expected = name(position) if position in positions else ZERO_DIGEST
        assert view.digest_at(position, stored.get) == expected
    found = [digest for _, leaf in view.leaves(stored.get) for digest in entries(leaf)]
    assert found == [name(position) for position in sorted(positions)]


def test_a_warm_position_loads_nothing():
    geometry, root, stored = build({5, 6}, MANY)
    view = TableView(geometry, root)
    loads = []

    def load(digest):
        loads.append(digest)
        return stored[digest]

    view.digest_at(5, load)
    assert len(loads) == 2
    view.digest_at(6, load)
    view.digest_at(7, load)
    assert len(loads) == 2


def test_what_is_not_resident_is_said_to_be_unknown():
    geometry, root, _ = build({5}, MANY)
    view = TableView(geometry, root)
    assert view.digest_at(5, lambda _: None) is None
    assert list(view.leaves(lambda _: None)) == []


def test_an_empty_disk_needs_no_node():
    geometry, _, _ = build(set(), MANY)
    view = TableView(geometry, TableRoot(ZERO_DIGEST, 2))
    assert view.digest_at(MANY - 1, lambda _: pytest.fail("loaded a node")) == ZERO_DIGEST
    assert list(view.leaves(lambda _: pytest.fail("loaded a node"))) == []


def test_a_node_that_no_tool_makes_is_refused_on_the_way():
    geometry = Geometry(4 * BLOCK_SIZE, BLOCK_SIZE)
    past_the_end = bytearray(NODE_SIZE)
    past_the_end[32 * 10 : 32 * 11] = name(1)
    node = bytes(past_the_end)
    view = TableView(geometry, TableRoot(digest_of(node), 1))
    with pytest.raises(TableRefusedError):
        view.digest_at(0, lambda _: node)
    with pytest.raises(TableRefusedError):
        list(view.leaves(lambda _: node))


def test_a_table_of_the_wrong_depth_is_refused():
    with pytest.raises(TableRefusedError):
        TableView(Geometry(4 * BLOCK_SIZE, BLOCK_SIZE), TableRoot(name(1), 2))


def test_children_are_announced_before_they_are_loaded():
    geometry, root, stored = build({0, FANOUT, 2 * FANOUT}, MANY)
    announced = []
    leaves = [digest for digest, _ in TableView(geometry, root).leaves(stored.get, announced.extend)]
    assert announced == leaves
    assert len(leaves) == 3
