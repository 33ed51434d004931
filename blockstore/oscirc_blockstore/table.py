"""The mapping table: which block stands where on a disk, as a Merkle tree of fixed-size nodes.

Every node is exactly 1024 digests of 32 bytes. Level 0 nodes hold block digests, level n nodes hold digests of level
n-1 nodes; the tree has `depth` levels, the least number that covers the disk, at least 1. Whether a digest names a
node or a block follows from its level alone. The zero digest stands for all-zero blocks and subtrees, and nothing
else does; entries past the end of the disk are zero.

A node comes from a stranger even when its digest is right (publishers are strangers to readers), so `check_node`
is applied to each one, and walks remember (digest, level): a tree whose 1024 entries all name the same child costs
one visit per level, not 1024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest, digest_of, digest_of_zeros
from oscirc_blockstore.errors import TableRefusedError

FANOUT = 1024
NODE_SIZE = FANOUT * DIGEST_SIZE
BLOCK_SIZES = tuple(1 << shift for shift in range(16, 21))  # 64 KiB to 1 MiB
DEFAULT_BLOCK_SIZE = 256 * 1024
SECTOR_SIZE = 512
MAX_DISK_SIZE = 1 << 46  # 64 TiB: bounds every walk that counts positions

_ZERO_NODE = bytes(NODE_SIZE)

LoadNode = Callable[[Digest], bytes]
"""Returns the verified 32,768 bytes of the node with this digest, or raises an `OscircError`."""


def positions_below(level: int) -> int:
    """How many positions one entry of a node at `level` covers: 1024 to the power of `level`."""
    return 1 << (10 * level)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a disk in bytes; raises `TableRefusedError` unless both are allowed."""

    disk_size: int
    block_size: int

    def __post_init__(self) -> None:
        if self.block_size not in BLOCK_SIZES:
            raise TableRefusedError(
                f"a block size of {self.block_size} bytes is not allowed (64 KiB to 1 MiB, power of 2)"
            )
        if not 0 < self.disk_size <= MAX_DISK_SIZE or self.disk_size % SECTOR_SIZE:
            raise TableRefusedError(f"a disk of {self.disk_size} bytes is not allowed (multiples of 512 up to 64 TiB)")

    @property
    def block_count(self) -> int:
        """Positions on the disk, the last one possibly padded."""
        return -(-self.disk_size // self.block_size)

    @property
    def depth(self) -> int:
        """Levels of nodes: the least that covers the disk, at least 1."""
        depth, covered = 1, FANOUT
        while covered < self.block_count:
            depth, covered = depth + 1, covered * FANOUT
        return depth

    @property
    def shift(self) -> int:
        """log2 of the block size: address to position is `address >> shift`."""
        return self.block_size.bit_length() - 1

    def positions(self, level: int, index: int) -> int:
        """How many positions on the disk the `index`-th node of `level` really covers."""
        span = positions_below(level + 1)
        return max(0, min(span, self.block_count - index * span))


@dataclass(frozen=True, slots=True)
class TableRoot:
    """Where a table starts: the digest of its top node (or the zero digest) and its number of levels."""

    digest: Digest
    depth: int


def entry(node: bytes, slot: int) -> Digest:
    """The `slot`-th of a node's 1024 digests."""
    return Digest(node[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE])


def check_node(node: bytes, geometry: Geometry, level: int, index: int) -> bytes:
    """Return `node` if a publisher's tool could have made it at this place, else raise `TableRefusedError`."""
    if len(node) != NODE_SIZE:
        raise TableRefusedError(f"a node has {len(node)} bytes instead of {NODE_SIZE}")
    if node == _ZERO_NODE:
        raise TableRefusedError("an all-zero node must be named by the zero digest")
    span = positions_below(level)
    used = -(-geometry.positions(level, index) // span)
    if node.count(0, used * DIGEST_SIZE) != NODE_SIZE - used * DIGEST_SIZE:
        raise TableRefusedError("a node names something past the end of the disk")
    forbidden = digest_of_zeros(geometry.block_size if level == 0 else NODE_SIZE)
    at = node.find(forbidden)
    while at >= 0:
        if at % DIGEST_SIZE == 0:
            raise TableRefusedError("a node names zeros by their hash instead of the zero digest")
        at = node.find(forbidden, at + 1)
    return node


class TableBuilder:
    """Builds a table from block digests given in ascending position; holds one unfinished node per level.

    `emit(digest, node)` is called once for every node as it is finished (equal nodes are emitted again).
    """

    def __init__(self, geometry: Geometry, emit: Callable[[Digest, bytes], None]) -> None:
        self._geometry = geometry
        self._emit = emit
        self._next = 0
        self._open: list[tuple[int, bytearray]] = [(0, bytearray(NODE_SIZE)) for _ in range(geometry.depth)]

    def add(self, position: int, digest: Digest) -> None:
        """Put a block at `position`; positions left out are zeros."""
        if not self._next <= position < self._geometry.block_count:
            raise TableRefusedError(f"position {position} is out of order or past the end of the disk")
        self._next = position + 1
        if digest != ZERO_DIGEST:
            self._put(0, position, digest)

    def _put(self, level: int, position: int, digest: Digest) -> None:
        index, slot = divmod(position, FANOUT)
        open_index, node = self._open[level]
        if index != open_index:
            self._close(level)
            node = bytearray(NODE_SIZE)
            self._open[level] = (index, node)
        node[slot * DIGEST_SIZE : (slot + 1) * DIGEST_SIZE] = digest

    def _close(self, level: int) -> Digest:
        index, node = self._open[level]
        if node == _ZERO_NODE:
            return ZERO_DIGEST
        raw = bytes(node)
        digest = digest_of(raw)
        self._emit(digest, raw)
        if level + 1 < self._geometry.depth:
            self._put(level + 1, index, digest)
        return digest

    def finish(self) -> TableRoot:
        """Close what is open and return the root."""
        digest = ZERO_DIGEST
        for level in range(self._geometry.depth):
            digest = self._close(level)
        return TableRoot(digest, self._geometry.depth)


def look_up(geometry: Geometry, root: TableRoot, position: int, load: LoadNode) -> Digest:
    """The digest of the block at `position`; loads at most `depth` nodes."""
    check_root(geometry, root)
    digest = root.digest
    for level in range(root.depth - 1, -1, -1):
        if digest == ZERO_DIGEST:
            return ZERO_DIGEST
        index, within = divmod(position, positions_below(level + 1))
        node = check_node(load(digest), geometry, level, index)
        digest = entry(node, within // positions_below(level))
    return digest


def check_root(geometry: Geometry, root: TableRoot) -> None:
    """Raise `TableRefusedError` unless the depth is the one that the disk's size asks for."""
    if root.depth != geometry.depth:
        raise TableRefusedError(f"a table of depth {root.depth} where the disk needs {geometry.depth}")


def iterate_blocks(
    geometry: Geometry, root: TableRoot, load: LoadNode, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Digest]]:
    """(position, digest) of every non-zero block with start <= position < stop, ascending."""
    check_root(geometry, root)
    stop = geometry.block_count if stop is None else min(stop, geometry.block_count)

    def walk(level: int, index: int, digest: Digest) -> Iterator[tuple[int, Digest]]:
        node = check_node(load(digest), geometry, level, index)
        span = positions_below(level)
        first = index * FANOUT
        low = max(0, start // span - first)
        high = min(FANOUT, -(-stop // span) - first)
        for slot in range(low, high):
            child = entry(node, slot)
            if child == ZERO_DIGEST:
                continue
            if level == 0:
                yield first + slot, child
            else:
                yield from walk(level - 1, first + slot, child)

    if root.digest != ZERO_DIGEST and start < stop:
        yield from walk(root.depth - 1, 0, root.digest)


@dataclass(frozen=True, slots=True)
class TableContents:
    """What a table names: distinct node and block digests in first-position order, and non-zero positions."""

    nodes: tuple[Digest, ...]
    blocks: tuple[Digest, ...]
    data_blocks: int


def contents(geometry: Geometry, root: TableRoot, load: LoadNode) -> TableContents:
    """Everything that a table names, each node checked, at a cost bounded by its distinct nodes."""
    check_root(geometry, root)
    nodes: dict[Digest, None] = {}
    blocks: dict[Digest, None] = {}
    counted: dict[tuple[Digest, int, int], int] = {}

    def walk(level: int, index: int, digest: Digest) -> int:
        # What a node may hold depends on its place only where the disk ends inside it: `positions` says both.
        key = (digest, level, geometry.positions(level, index))
        known = counted.get(key)
        if known is not None:
            return known
        node = check_node(load(digest), geometry, level, index)
        nodes[digest] = None
        total = 0
        for slot in range(FANOUT):
            child = entry(node, slot)
            if child == ZERO_DIGEST:
                continue
            if level == 0:
                blocks[child] = None
                total += 1
            else:
                total += walk(level - 1, index * FANOUT + slot, child)
        counted[key] = total
        return total

    total = 0 if root.digest == ZERO_DIGEST else walk(root.depth - 1, 0, root.digest)
    return TableContents(tuple(nodes), tuple(blocks), total)


def differences(
    geometry: Geometry, old: TableRoot, new: TableRoot, load: LoadNode
) -> Iterator[tuple[int, Digest, Digest]]:
    """(position, old digest, new digest) wherever two tables of one geometry differ; equal subtrees cost nothing."""
    check_root(geometry, old)
    check_root(geometry, new)

    def node_of(level: int, index: int, digest: Digest) -> bytes:
        return _ZERO_NODE if digest == ZERO_DIGEST else check_node(load(digest), geometry, level, index)

    def walk(level: int, index: int, one: Digest, two: Digest) -> Iterator[tuple[int, Digest, Digest]]:
        left, right = node_of(level, index, one), node_of(level, index, two)
        for slot in range(FANOUT):
            a, b = entry(left, slot), entry(right, slot)
            if a == b:
                continue
            if level == 0:
                yield index * FANOUT + slot, a, b
            else:
                yield from walk(level - 1, index * FANOUT + slot, a, b)

    if old.digest != new.digest:
        yield from walk(new.depth - 1, 0, old.digest, new.digest)
