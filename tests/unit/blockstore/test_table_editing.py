"""A table that is edited is the table that is built of the same blocks, at the cost of what changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.table import FANOUT, Geometry, TableBuilder, TableRoot, contents, iterate_blocks
from oscirc_blockstore.table_editing import TableEditor

BLOCK = 64 << 10


def name(text):
    return digest_of(str(text).encode())


def built(geometry, blocks):
    nodes = {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position in sorted(blocks):
        builder.add(position, blocks[position])
    return builder.finish(), nodes


def edited(geometry, root, nodes, changes):
    """(new root, nodes that are new, digests that were loaded, what was shared, blocks added)."""
    loaded, new, shared = [], {}, []

    def load(digest):
        loaded.append(digest)
        return nodes[digest]

    editor = TableEditor(geometry, root, load, new.__setitem__, lambda *place: shared.append(place))
    for position in sorted(changes):
        editor.add(position, changes[position])
    return editor.finish(), new, loaded, shared, editor.added_blocks


positions = st.one_of(
    st.integers(0, 40), st.integers(FANOUT - 3, FANOUT + 3), st.integers(FANOUT * FANOUT - 3, FANOUT * FANOUT + 1999)
)
digests = st.one_of(st.just(ZERO_DIGEST), st.integers(0, 5).map(name))
LARGE = Geometry((FANOUT * FANOUT + 2000) * BLOCK, BLOCK)


@given(old=st.dictionaries(positions, digests, max_size=12), changes=st.dictionaries(positions, digests, max_size=12))
def test_an_edited_table_is_the_one_that_is_built_of_the_same_blocks(old, changes):
    root, nodes = built(LARGE, old)
    expected_root, expected_nodes = built(LARGE, {**old, **changes})
    found, new, loaded, _, added = edited(LARGE, root, nodes, changes)
    assert found == expected_root
    assert set(new) <= set(expected_nodes)
    assert set(expected_nodes) <= set(new) | set(nodes)
    count = sum(digest != ZERO_DIGEST for digest in {**old, **changes}.values())
    assert added == count - sum(digest != ZERO_DIGEST for digest in old.values())
    assert len(loaded) <= 3 * len({position // FANOUT for position in changes})


@given(old=st.dictionaries(positions, digests, max_size=12), changes=st.dictionaries(positions, digests, max_size=12))
def test_what_is_new_and_what_is_shared_are_together_all_that_the_new_table_names(old, changes):
    root, nodes = built(LARGE, old)
    found, new, _, shared, _ = edited(LARGE, root, nodes, changes)
    named_nodes, named_blocks = set(new), {digest for digest in changes.values() if digest != ZERO_DIGEST}
    for level, index, digest in shared:
        if level < 0:
            named_blocks.add(digest)
            assert {**old}[index] == digest
            continue
        pending = [(level, digest)]
        while pending:
            at, node = pending.pop()
            named_nodes.add(node)
            for start in range(0, len(nodes[node]), 32):
                child = Digest(nodes[node][start : start + 32])
                if child != ZERO_DIGEST:
                    named_blocks.add(child) if at == 0 else pending.append((at - 1, child))
    everything = contents(LARGE, found, lambda digest: {**nodes, **new}[digest])
    assert set(everything.blocks) <= named_blocks
    assert set(everything.nodes) <= named_nodes


def test_one_changed_block_of_a_large_disk_loads_one_path_and_shares_the_rest():
    old = {position: name(position % 7) for position in range(0, FANOUT * FANOUT + 2000, 500)}
    root, nodes = built(LARGE, old)
    found, new, loaded, shared, added = edited(LARGE, root, nodes, {1500: name("new")})
    assert (len(loaded), len(new), added) == (3, 3, 0)
    assert sum(level == 0 for level, _, _ in shared) == FANOUT - 1  # its leaf's neighbours, none of them looked at
    assert sum(level == 1 for level, _, _ in shared) == 1
    assert dict(iterate_blocks(LARGE, found, lambda digest: {**nodes, **new}[digest])) == {**old, 1500: name("new")}


def test_nothing_changed_loads_nothing_and_is_the_old_table():
    root, nodes = built(LARGE, {5: name("a")})
    assert edited(LARGE, root, nodes, {}) == (root, {}, [], [(2, 0, root.digest)], 0)


def test_a_block_written_with_what_it_held_changes_nothing():
    root, nodes = built(LARGE, {5: name("a")})
    found, new, _, shared, added = edited(LARGE, root, nodes, {5: name("a")})
    assert (found, new, shared, added) == (root, {}, [(2, 0, root.digest)], 0)


def test_a_disk_whose_last_block_becomes_zeros_has_no_table():
    root, nodes = built(LARGE, {5: name("a")})
    found, new, _, shared, added = edited(LARGE, root, nodes, {5: ZERO_DIGEST})
    assert (found, new, shared, added) == (TableRoot(ZERO_DIGEST, 3), {}, [], -1)


def test_positions_out_of_order_or_past_the_end_are_refused():
    editor = TableEditor(LARGE, TableRoot(ZERO_DIGEST, 3), dict[Digest, bytes]().__getitem__, lambda *_: None)
    editor.add(7, name("a"))
    for position in (7, 6, LARGE.block_count):
        with pytest.raises(TableRefusedError, match="out of order"):
            editor.add(position, name("b"))


def test_a_base_of_another_depth_is_refused():
    with pytest.raises(TableRefusedError, match="depth"):
        TableEditor(LARGE, TableRoot(ZERO_DIGEST, 2), dict[Digest, bytes]().__getitem__, lambda *_: None)


def test_a_base_node_that_no_tool_makes_is_refused():
    node = bytes(31 * FANOUT) + name("x") * 32  # names something far past the end of a short disk
    geometry = Geometry(10 * BLOCK, BLOCK)
    editor = TableEditor(geometry, TableRoot(digest_of(node), 1), lambda _: node, lambda *_: None)
    with pytest.raises(TableRefusedError, match="past the end"):
        editor.add(1, name("a"))
