"""Block lengths: how long the block file of each node and block of a table is, as one small file.

The table is signed and says which blocks there are; what a fetch of them costs is known only to whoever stores them.
This file says it in the order of the table, so that no digest is repeated (`docs/formats.md` has the layout): the
distinct nodes of each level from the top down, where they are met first; then the number of non-zero entries of each
distinct leaf; then, leaf by leaf and entry by entry, the lengths of the blocks. So one leaf and the nodes above the
leaves are enough to use its part.

It is an accelerator, made by the server and signed by nobody: what it says is bounded here, compared with the table
where it is used, and good for numbers that a person reads, never for what a guest reads.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.frame import max_frame_bytes, pack, unpack
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, LoadNode, TableRoot, check_node, check_root, entry

NAME = "blocks"
MAGIC = b"OSCLENS1"
MAX_VALUES = 1 << 24  # 4 TiB of blocks of the usual size
_HEAD = struct.Struct("<8s32sII")
_LEVEL = struct.Struct("<I")
_PLANES = 3
_LEVEL_OF_COMPRESSION = 9
_WINDOW_LOG = 23
MAX_FILE_BYTES = _PLANES * MAX_VALUES + (1 << 16)


@dataclass(frozen=True, slots=True)
class BlockLengths:
    """A parsed file: lengths of nodes by level from the top, and of each leaf how many blocks and where they begin."""

    manifest: Digest
    nodes: tuple[array[int], ...]
    counts: array[int]
    starts: array[int]
    blocks: array[int]

    def of_leaf(self, number: int, leaf: bytes) -> dict[Digest, int]:
        """The lengths of the blocks of a leaf by its number; `DocumentRefusedError` where it is not that leaf."""
        digests = list(_entries(leaf))
        if number >= len(self.counts) or self.counts[number] != len(digests):
            raise DocumentRefusedError("the block lengths are those of another table")
        start = self.starts[number]
        return dict(zip(digests, self.blocks[start : start + len(digests)], strict=True))

    def sum_of_leaf(self, number: int) -> tuple[int, int]:
        """How many blocks a leaf names that nobody has looked into, and their bytes."""
        if number >= len(self.counts):
            raise DocumentRefusedError("the block lengths are those of another table")
        start, count = self.starts[number], self.counts[number]
        return count, sum(self.blocks[start : start + count])


def node_order(geometry: Geometry, root: TableRoot, load: LoadNode) -> list[dict[Digest, int]]:
    """The number of each distinct node within its level, from the top level down; loads no leaf."""
    check_root(geometry, root)
    if root.digest == ZERO_DIGEST:
        return [{} for _ in range(root.depth)]
    levels: list[dict[Digest, int]] = [{root.digest: 0}]
    places = {root.digest: 0}  # the place at which a node is met first
    for level in range(root.depth - 1, 0, -1):
        below: dict[Digest, int] = {}
        for digest, index in places.items():
            node = check_node(load(digest), geometry, level, index)
            for slot in range(FANOUT):
                child = entry(node, slot)
                if child != ZERO_DIGEST:
                    below.setdefault(child, index * FANOUT + slot)
            if len(below) > MAX_VALUES:
                raise DocumentRefusedError("a table of so many nodes has no block lengths")
        places = below
        levels.append({digest: number for number, digest in enumerate(places)})
    return levels


def build(
    manifest: Digest, geometry: Geometry, root: TableRoot, load: LoadNode, lengths: Mapping[Digest, int]
) -> bytes:
    """The file of a table whose nodes and blocks have these lengths; `KeyError` for one that is not said.

    `DocumentRefusedError` for a table of more than `MAX_VALUES` blocks: there is no file for those.
    """
    levels = node_order(geometry, root, load)
    values = array("I", (lengths[digest] for level in levels for digest in level))
    blocks, counts = array("I"), array("I")
    for leaf in levels[-1]:
        digests = list(_entries(load(leaf)))
        counts.append(len(digests))
        blocks.extend(lengths[digest] for digest in digests)
        if len(values) + len(counts) + len(blocks) > MAX_VALUES:
            raise DocumentRefusedError("a table of so many blocks has no block lengths")
    values += counts
    values += blocks
    body = b"".join([*(_LEVEL.pack(len(level)) for level in levels), *_planes(values)])
    packed = pack(body, level=_LEVEL_OF_COMPRESSION, window_log=_WINDOW_LOG)
    return _HEAD.pack(MAGIC, manifest, len(packed), len(body)) + packed


def parse(raw: bytes, geometry: Geometry) -> BlockLengths:
    """The file of a disk of this geometry, every number bounded; raise `DocumentRefusedError`."""
    manifest, body = _unpacked(raw)
    depth = geometry.depth
    values_at = depth * _LEVEL.size
    if len(body) < values_at or (len(body) - values_at) % _PLANES:
        raise DocumentRefusedError("block lengths that are cut off")
    sizes = [_LEVEL.unpack_from(body, at * _LEVEL.size)[0] for at in range(depth)]
    values = _joined(body[values_at:])
    leaf_count, node_count = sizes[-1], sum(sizes)
    if node_count + leaf_count > len(values):
        raise DocumentRefusedError("block lengths that contradict their counts")
    ends = list(accumulate(sizes))
    nodes = tuple(values[end - size : end] for end, size in zip(ends, sizes, strict=True))
    counts = values[node_count : node_count + leaf_count]
    blocks = values[node_count + leaf_count :]
    if sum(counts) != len(blocks):
        raise DocumentRefusedError("block lengths that contradict their counts")
    _check_range(values[:node_count], max_frame_bytes(NODE_SIZE))
    _check_range(counts, FANOUT)
    _check_range(blocks, max_frame_bytes(geometry.block_size))
    starts = array("I", accumulate(counts[:-1], initial=0)) if counts else array("I")
    return BlockLengths(manifest, nodes, counts, starts, blocks)


def _unpacked(raw: bytes) -> tuple[Digest, bytes]:
    if len(raw) < _HEAD.size:
        raise DocumentRefusedError("block lengths that are cut off")
    magic, manifest, packed, size = _HEAD.unpack(raw[: _HEAD.size])
    if magic != MAGIC:
        raise DocumentRefusedError("not the block lengths of a table, or of a form that this version does not know")
    if _HEAD.size + packed != len(raw) or size > MAX_FILE_BYTES:
        raise DocumentRefusedError("block lengths that contradict their own length")
    body = unpack(raw[_HEAD.size :], size, window_log=_WINDOW_LOG, what="block lengths")
    return Digest(manifest), body


def _check_range(values: array[int], most: int) -> None:
    if values and not (min(values) > 0 and max(values) <= most):
        raise DocumentRefusedError("block lengths that no block file can have")


def _planes(values: array[int]) -> Iterable[bytes]:
    """The low bytes of all values, then the middle ones, then the high ones: each below 2^24."""
    raw = _little(values).tobytes()
    return (raw[plane :: values.itemsize] for plane in range(_PLANES))


def _joined(planes: bytes) -> array[int]:
    values, count = array("I"), len(planes) // _PLANES
    raw = bytearray(count * values.itemsize)
    for plane in range(_PLANES):
        raw[plane :: values.itemsize] = planes[plane * count : (plane + 1) * count]
    values.frombytes(raw)
    return _little(values)


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values


def _entries(node: bytes) -> Iterator[Digest]:
    for slot in range(FANOUT):
        child = entry(node, slot)
        if child != ZERO_DIGEST:
            yield child
