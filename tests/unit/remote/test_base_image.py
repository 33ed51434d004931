"""A version as the base of something new: what is loaded for which bytes, and that it is counted."""

from oscirc_blockstore.digests import ZERO_DIGEST, block_digest
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder
from oscirc_remote.base_image import BaseImage

BLOCK = 64 << 10


class MemorySource:
    """Blocks by digest; notes what is asked for, and how long one may take."""

    def __init__(self):
        self.held, self.asked, self.closed = {}, [], False

    def fetch(self, digest, raw_size, deadline):
        assert deadline.remaining_s() > 30
        self.asked.append(digest)
        assert len(self.held[digest]) == raw_size
        return self.held[digest]

    def close(self):
        self.closed = True


def made(blocks, tail=0):
    geometry = Geometry(len(blocks) * BLOCK - tail, BLOCK)
    source = MemorySource()
    builder = TableBuilder(geometry, source.held.__setitem__)
    for position, raw in enumerate(blocks):
        digest = block_digest(raw)
        builder.add(position, digest)
        if digest != ZERO_DIGEST:
            source.held[digest] = raw
    count = sum(any(raw) for raw in blocks)
    return BaseImage(Manifest("alice", "debian", geometry, builder.finish(), count, SystemFacts()), source), source


def block(letter):
    return letter * BLOCK


def test_bytes_come_from_the_blocks_that_hold_them_and_zeros_from_none():
    base, _ = made([block(b"a"), bytes(BLOCK), block(b"c")])
    assert base.read(BLOCK - 3, BLOCK + 6) == b"aaa" + bytes(BLOCK) + b"ccc"
    assert base.counts() == {"block_loads": 2, "node_loads": 1, "read_bytes": 6}
    assert base.read(BLOCK, BLOCK) == bytes(BLOCK)
    assert base.counts()["block_loads"] == 2


def test_both_sides_of_a_change_in_a_block_take_one_load():
    base, _ = made([block(b"a"), block(b"b")])
    assert base.read(BLOCK, 4096) + base.read(BLOCK + 8192, 4096) == b"b" * 8192
    assert base.counts()["block_loads"] == 1


def test_a_read_ends_with_the_disk():
    base, _ = made([block(b"a"), b"b" * (BLOCK - 512) + bytes(512)], tail=512)
    assert base.read(2 * BLOCK - 1024, 4096) == b"b" * 512
    assert base.read(2 * BLOCK, 10) == b""


def test_nodes_and_blocks_are_given_by_digest():
    base, source = made([block(b"a")])
    root = base.manifest.root.digest
    assert base.load(root, NODE_SIZE) == source.held[root]
    assert base.load(block_digest(block(b"a")), BLOCK) == block(b"a")
    assert base.counts() == {"block_loads": 1, "node_loads": 1, "read_bytes": 0}
    base.close()
    assert source.closed
