"""Block lengths: what is built comes back for every table, and what cannot be the table's is refused."""

import random
import struct

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import lengths
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.table import FANOUT, Geometry, TableBuilder, contents

BLOCK = 65536
DISK = digest_of(b"disk")
HEAD = struct.Struct("<8s32sII")


def table_of(count, positions):
    """A table with these blocks (position to a number that the digest follows from)."""
    geometry, nodes = Geometry(count * BLOCK, BLOCK), {}
    builder = TableBuilder(geometry, nodes.__setitem__)
    for position, number in sorted(positions.items()):
        builder.add(position, digest_of(b"block %d" % number))
    return geometry, builder.finish(), nodes


def stored_lengths(geometry, root, nodes, seed=1):
    table = contents(geometry, root, nodes.__getitem__)
    chance = random.Random(seed)
    return {digest: chance.randint(1, 33_000) for digest in (*table.nodes, *table.blocks)}


def built(count=3, positions=None):
    geometry, root, nodes = table_of(count, {0: 1, 2: 2} if positions is None else positions)
    known = stored_lengths(geometry, root, nodes)
    return geometry, root, nodes, known, lengths.build(DISK, geometry, root, nodes.__getitem__, known)


def with_body(body, *, size=None, manifest=DISK, magic=lengths.MAGIC, level=3):
    packed = zstandard.ZstdCompressor(level=level).compress(body)
    return HEAD.pack(magic, manifest, len(packed), len(body) if size is None else size) + packed


def body_of(raw):
    return zstandard.ZstdDecompressor().decompress(raw[HEAD.size :])


POSITIONS = st.dictionaries(st.integers(0, 5 * FANOUT - 1), st.integers(1, 40), max_size=60)


@given(POSITIONS, st.integers(0, 1000))
@settings(deadline=None)
def test_every_length_comes_back_at_its_place(positions, seed):
    geometry, root, nodes = table_of(5 * FANOUT, positions)
    known = stored_lengths(geometry, root, nodes, seed)
    raw = lengths.build(DISK, geometry, root, nodes.__getitem__, known)
    parsed = lengths.parse(raw, geometry)
    assert parsed.manifest == DISK
    levels = lengths.node_order(geometry, root, nodes.__getitem__)
    found = {}
    for level, sizes in zip(levels, parsed.nodes, strict=True):
        found |= {digest: sizes[number] for digest, number in level.items()}
    for digest, number in levels[-1].items():
        of_leaf = parsed.of_leaf(number, nodes[digest])
        found |= of_leaf
        count, total = parsed.sum_of_leaf(number)
        assert (count >= len(of_leaf), total >= sum(of_leaf.values())) == (True, True)
    assert found == known


def test_a_leaf_that_nobody_has_looked_into_still_has_its_sum():
    geometry, root, nodes, known, raw = built(2 * FANOUT, {0: 1, 1: 1, FANOUT: 2})
    levels = lengths.node_order(geometry, root, {root.digest: nodes[root.digest]}.__getitem__)
    parsed = lengths.parse(raw, geometry)
    assert len(levels[-1]) == 2
    assert parsed.sum_of_leaf(0) == (2, 2 * known[digest_of(b"block 1")])
    assert parsed.sum_of_leaf(1) == (1, known[digest_of(b"block 2")])


def test_a_disk_of_zeros_has_no_lengths():
    geometry, root, _, _, raw = built(3, {})
    parsed = lengths.parse(raw, geometry)
    assert (list(parsed.blocks), [list(level) for level in parsed.nodes]) == ([], [[]])
    assert lengths.node_order(geometry, root, {}.__getitem__) == [{}]


def test_the_same_table_gives_the_same_file_and_two_bytes_a_block():
    positions = {at: at + 1 for at in range(4000)}
    assert built(4000, positions)[-1] == built(4000, positions)[-1]
    assert len(built(4000, positions)[-1]) < 2.1 * 4000


def test_lengths_of_another_table_are_refused_where_they_are_used():
    _, _, nodes, _, raw = built()
    geometry, root, others = table_of(3, {0: 1, 1: 3, 2: 2})
    parsed = lengths.parse(raw, geometry)
    with pytest.raises(DocumentRefusedError, match="another table"):
        parsed.of_leaf(0, others[root.digest])
    for number in (1, 7):
        with pytest.raises(DocumentRefusedError, match="another table"):
            parsed.of_leaf(number, next(iter(nodes.values())))
        with pytest.raises(DocumentRefusedError, match="another table"):
            parsed.sum_of_leaf(number)


def test_a_block_whose_length_is_not_known_makes_no_file():
    geometry, root, nodes, known, _ = built()
    del known[digest_of(b"block 2")]
    with pytest.raises(KeyError):
        lengths.build(DISK, geometry, root, nodes.__getitem__, known)


@pytest.mark.parametrize("cut", [0, 10, HEAD.size - 1, HEAD.size, HEAD.size + 5, -1])
def test_a_file_that_is_cut_off_is_refused(cut):
    geometry, *_, raw = built()
    with pytest.raises(DocumentRefusedError):
        lengths.parse(raw[:cut], geometry)


def planes(*values):
    return b"".join(bytes(value >> shift & 255 for value in values) for shift in (0, 8, 16))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9), magic=b"OSCLENS2"),
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9)) + b"more",
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9), size=15),
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9), size=1 << 31),
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9) + b"x"),
        with_body(struct.pack("<I", 1) + planes(5, 2, 9)),  # one length too few
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 9, 9)),
        with_body(struct.pack("<I", 0xFFFFFFFF) + planes(5, 2, 9, 9)),
        with_body(struct.pack("<I", 1) + planes(0, 2, 9, 9)),
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 0)),
        with_body(struct.pack("<I", 1) + planes(40_000, 2, 9, 9)),  # no node's file is that long
        with_body(struct.pack("<I", 1) + planes(5, 2, 9, 70_000)),  # nor a block's of 64 KiB
        with_body(struct.pack("<I", 2) + planes(5, 5, 0, 2, 9, 9)),
        with_body(struct.pack("<I", 1) + planes(5, 1025, *[9] * 1025)),
        with_body(b"\x01\x00"),
        HEAD.pack(lengths.MAGIC, DISK, 4, 9) + b"junk",
    ],
)
def test_what_no_table_has_is_refused(raw):
    with pytest.raises(DocumentRefusedError):
        lengths.parse(raw, Geometry(3 * BLOCK, BLOCK))


def test_what_it_says_is_what_is_written_down():
    """The layout of docs/formats.md, by hand."""
    parsed = lengths.parse(with_body(struct.pack("<I", 1) + planes(5, 2, 300, 65_600)), Geometry(3 * BLOCK, BLOCK))
    assert (list(parsed.nodes[0]), list(parsed.counts), list(parsed.blocks)) == ([5], [2], [300, 65_600])


def test_a_frame_that_states_a_gigabyte_is_refused_unopened():
    packed = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    raw = HEAD.pack(lengths.MAGIC, DISK, len(packed), 1 << 27) + packed
    with pytest.raises(DocumentRefusedError, match="own length"):
        lengths.parse(raw, Geometry(3 * BLOCK, BLOCK))


@given(st.data())
@settings(deadline=None)
def test_damage_is_read_or_refused(data):
    geometry, root, nodes, _, raw = built()
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = lengths.parse(bytes(damaged), geometry)
        of_leaf = parsed.of_leaf(0, nodes[root.digest])
        assert all(isinstance(digest, bytes) and 0 < size <= BLOCK + 1024 for digest, size in of_leaf.items())
    except DocumentRefusedError:
        pass


def test_levels_are_numbered_as_they_are_met():
    geometry, root, nodes = table_of(3 * FANOUT, {0: 1, FANOUT: 2, 2 * FANOUT: 1})
    levels = lengths.node_order(geometry, root, nodes.__getitem__)
    assert [list(level.values()) for level in levels] == [[0], [0, 1]]  # the third leaf is the first one again
    assert Digest(next(iter(levels[1]))) == TABLE_LEAF


TABLE_LEAF = digest_of(digest_of(b"block 1") + bytes(32 * (FANOUT - 1)))
