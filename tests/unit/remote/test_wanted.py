import pytest

from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import TableRefusedError
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableBuilder, TableRoot
from oscirc_remote.wanted import Wanted

from .fakes import BLOCK_SIZE, block, make_image


def image(positions):
    made, stored = make_image({at: block(number) for at, number in positions.items()}, 3 * FANOUT * BLOCK_SIZE)
    nodes = {digest: raw for digest, raw in stored.items() if len(raw) == NODE_SIZE}
    return made, stored, nodes


def accept_nodes(wanted, nodes, root):
    wanted.accept(root, nodes[root])
    for digest, raw in nodes.items():
        wanted.accept(digest, raw)


def test_a_block_is_wanted_when_its_node_is_known():
    made, stored, nodes = image({0: 1, FANOUT + 3: 2})
    wanted = Wanted(made.geometry, made.root, stored)
    assert not wanted.accept(digest_of(block(1)), block(1))
    accept_nodes(wanted, nodes, made.root.digest)
    assert wanted.accept(digest_of(block(1)), block(1))
    assert wanted.position_of(digest_of(block(2))) == FANOUT + 3


def test_nodes_and_blocks_that_the_table_does_not_name_are_not_wanted():
    made, stored, nodes = image({0: 1})
    _, others, other_nodes = image({0: 9})
    wanted = Wanted(made.geometry, made.root, {**stored, **others})
    accept_nodes(wanted, nodes, made.root.digest)
    assert not wanted.accept(digest_of(block(9)), block(9))
    foreign = next(digest for digest in other_nodes if digest not in nodes)
    assert not wanted.accept(foreign, other_nodes[foreign])


def test_only_what_the_bundle_names_is_remembered():
    made, _, nodes = image({at: at + 1 for at in range(20)})
    named = {*nodes, digest_of(block(3))}
    wanted = Wanted(made.geometry, made.root, named)
    accept_nodes(wanted, nodes, made.root.digest)
    assert wanted.position_of(digest_of(block(3))) == 2
    assert wanted.position_of(digest_of(block(4))) is None


def test_a_block_that_stands_often_is_at_its_first_place():
    made, stored, nodes = image({5: 1, 7: 1, 2 * FANOUT: 1})
    wanted = Wanted(made.geometry, made.root, stored)
    accept_nodes(wanted, nodes, made.root.digest)
    assert wanted.position_of(digest_of(block(1))) == 5


def test_whether_a_node_s_entries_are_known_is_told():
    made, stored, nodes = image({0: 1})
    wanted = Wanted(made.geometry, made.root, stored)
    assert wanted.lacks_node(made.root.digest)
    accept_nodes(wanted, nodes, made.root.digest)
    assert not any(wanted.lacks_node(digest) for digest in nodes)
    assert not wanted.lacks_node(digest_of(block(1)))


def test_a_node_that_cannot_stand_there_is_refused():
    raw = digest_of(b"x") * FANOUT  # it names blocks beyond the disk's end
    geometry = Geometry(4 * BLOCK_SIZE, BLOCK_SIZE)
    wanted = Wanted(geometry, TableRoot(digest_of(raw), 1), {digest_of(b"x")})
    with pytest.raises(TableRefusedError):
        wanted.accept(digest_of(raw), raw)


def test_an_empty_disk_wants_nothing():
    geometry = Geometry(4 * BLOCK_SIZE, BLOCK_SIZE)
    root = TableBuilder(geometry, lambda _digest, _raw: None).finish()
    assert root.digest == ZERO_DIGEST
    wanted = Wanted(geometry, root, {digest_of(block(1))})
    assert not wanted.accept(digest_of(block(1)), block(1))
