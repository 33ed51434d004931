"""A disk as a file that is never written: raw or qcow2, any range of it told from the mapping table.

Raw is the disk. The qcow2 (version 3, clusters of 64 KiB, no compression, no backing file) has a layout that follows
from which positions hold data and from nothing else: header, refcount table, refcount blocks, L1, the L2 tables that
are needed, then the data in the order of the disk. Positions of zeros take no cluster. So the same manifest is the same
file, byte for byte, and a download can be resumed at any server.

Kept in memory is one count for each 512 positions; a walk holds one node of each level. Source: QEMU's
docs/interop/qcow2.rst.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.table import (
    FANOUT,
    Geometry,
    LoadNode,
    TableRoot,
    check_node,
    check_root,
    entry,
    iterate_blocks,
    look_up,
)

CLUSTER = 1 << 16
UNIT = 512  # positions: the fewest that an L2 table covers, with blocks of 1 MiB
_ENTRY = 8
_L2_ENTRIES = CLUSTER // _ENTRY
_REFCOUNTS = CLUSTER // 2
_COPIED = 1 << 63
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_HEADER_BYTES = 104


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many bytes that are zero."""

    length: int


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Bytes `start` to `stop` (excluded) of a block."""

    digest: Digest
    start: int
    stop: int


Piece = bytes | Zeros | BlockPart


def raw_pieces(geometry: Geometry, root: TableRoot, load: LoadNode, start: int, stop: int) -> Iterator[Piece]:
    """Bytes `start` to `stop` of the disk."""
    size = geometry.block_size
    at = start
    for position, digest in iterate_blocks(geometry, root, load, start // size, -(-stop // size)):
        first = position * size
        if first > at:
            yield Zeros(first - at)
            at = first
        end = min(stop, first + size)
        yield BlockPart(digest, at - first, end - first)
        at = end
    if at < stop:
        yield Zeros(stop - at)


def count_units(geometry: Geometry, root: TableRoot, load: LoadNode) -> array[int]:
    """How many positions hold data in each unit of 512, in the order of the disk."""
    check_root(geometry, root)
    counts = array("I", bytes(4 * -(-geometry.block_count // UNIT)))
    known: dict[tuple[Digest, int], tuple[int, ...]] = {}

    def walk(level: int, index: int, digest: Digest) -> None:
        if level == 0:
            key = digest, geometry.positions(0, index)
            halves = known.get(key)
            if halves is None:
                node = check_node(load(digest), geometry, 0, index)
                used = [any(node[at : at + DIGEST_SIZE]) for at in range(0, len(node), DIGEST_SIZE)]
                halves = known[key] = tuple(sum(used[at : at + UNIT]) for at in range(0, FANOUT, UNIT))
            for half, count in enumerate(halves):
                if count:
                    counts[index * (FANOUT // UNIT) + half] = count
            return
        node = check_node(load(digest), geometry, level, index)
        for slot in range(FANOUT):
            child = entry(node, slot)
            if child != ZERO_DIGEST:
                walk(level - 1, index * FANOUT + slot, child)

    if root.digest != ZERO_DIGEST:
        walk(root.depth - 1, 0, root.digest)
    return counts


class Qcow2File:
    """The qcow2 of one disk: its `size` in bytes, and any part of it."""

    def __init__(self, geometry: Geometry, root: TableRoot, load: LoadNode) -> None:
        self._geometry, self._root = geometry, root
        self._per_block = geometry.block_size // CLUSTER
        self._starts = array("Q", accumulate(count_units(geometry, root, load), initial=0))
        self._per_table = _L2_ENTRIES // self._per_block  # positions that an L2 table covers
        units = self._per_table // UNIT
        tables = -(-geometry.block_count // self._per_table)
        last = len(self._starts) - 1
        self._tables = array(
            "I",
            (at for at in range(tables) if self._starts[min(last, (at + 1) * units)] > self._starts[at * units]),
        )
        self._units = units
        data = self._starts[-1] * self._per_block
        if data and look_up(geometry, root, geometry.block_count - 1, load) != ZERO_DIGEST:
            kept = geometry.disk_size - (geometry.block_count - 1) * geometry.block_size
            data -= self._per_block - -(-kept // CLUSTER)
        self._l1_entries = tables
        self._l1_clusters = -(-tables * _ENTRY // CLUSTER)
        self._place(data)

    def _place(self, data: int) -> None:
        """Clusters of each part: the refcounts count themselves."""
        rest = 1 + self._l1_clusters + len(self._tables) + data
        blocks = table = total = 0
        while total != rest + blocks + table:
            total = rest + blocks + table
            blocks = -(-total // _REFCOUNTS)
            table = -(-blocks * _ENTRY // CLUSTER)
        self._refcount_table, self._refcount_blocks, self._total = table, blocks, total
        self._first_l1 = 1 + table + blocks
        self._first_l2 = self._first_l1 + self._l1_clusters
        self._first_data = self._first_l2 + len(self._tables)
        self.size = total * CLUSTER

    def pieces(self, load: LoadNode, start: int, stop: int) -> Iterator[Piece]:
        """Bytes `start` to `stop` of the file."""
        data_at = self._first_data * CLUSTER
        at = start
        while at < min(stop, data_at):
            number, within = divmod(at, CLUSTER)
            end = min(stop, (number + 1) * CLUSTER)
            yield self._cluster(load, number)[within : within + end - at]
            at = end
        if at < stop:
            yield from self._data(load, at - data_at, stop - data_at)

    def _data(self, load: LoadNode, start: int, stop: int) -> Iterator[Piece]:
        size = self._geometry.block_size
        rank = start // size
        unit = bisect_right(self._starts, rank) - 1
        number = self._starts[unit]
        for _, digest in iterate_blocks(self._geometry, self._root, load, unit * UNIT):
            if number >= rank:
                first = number * size
                yield BlockPart(digest, max(0, start - first), min(size, stop - first))
                if first + size >= stop:
                    return
            number += 1

    def _cluster(self, load: LoadNode, number: int) -> bytes:
        """One cluster of metadata."""
        if number == 0:
            return self._header()
        if number < 1 + self._refcount_table:
            first = (number - 1) * _L2_ENTRIES
            stop = min(self._refcount_blocks, first + _L2_ENTRIES)
            return _packed((1 + self._refcount_table + at) * CLUSTER for at in range(first, stop))
        if number < self._first_l1:
            first = (number - 1 - self._refcount_table) * _REFCOUNTS
            used = max(0, min(self._total - first, _REFCOUNTS))
            return b"\x00\x01" * used + bytes(CLUSTER - 2 * used)
        if number < self._first_l2:
            return self._l1(number - self._first_l1)
        return self._l2(load, self._tables[number - self._first_l2])

    def _header(self) -> bytes:
        header = _HEADER.pack(
            b"QFI\xfb",
            3,
            0,  # no backing file
            0,
            CLUSTER.bit_length() - 1,
            self._geometry.disk_size,
            0,  # not encrypted
            self._l1_entries,
            self._first_l1 * CLUSTER,
            CLUSTER,
            self._refcount_table,
            0,  # no snapshots
            0,
            0,  # no features
            0,
            0,
            4,  # refcounts of 16 bits
            _HEADER_BYTES,
        )
        return header + bytes(CLUSTER - len(header))

    def _l1(self, number: int) -> bytes:
        first = number * _L2_ENTRIES
        entries = [0] * min(_L2_ENTRIES, self._l1_entries - first)
        rank = bisect_right(self._tables, first - 1) if first else 0
        while rank < len(self._tables) and self._tables[rank] < first + len(entries):
            entries[self._tables[rank] - first] = (self._first_l2 + rank) * CLUSTER | _COPIED
            rank += 1
        return _packed(entries)

    def _l2(self, load: LoadNode, table: int) -> bytes:
        first = table * self._per_table
        entries = [0] * _L2_ENTRIES
        cluster = self._first_data + self._starts[table * self._units] * self._per_block
        for position, _ in iterate_blocks(self._geometry, self._root, load, first, first + self._per_table):
            for slot in range((position - first) * self._per_block, (position - first + 1) * self._per_block):
                if cluster < self._total:
                    entries[slot] = cluster * CLUSTER | _COPIED
                cluster += 1
        return _packed(entries)


def _packed(entries: Iterator[int] | list[int]) -> bytes:
    raw = b"".join(each.to_bytes(_ENTRY, "big") for each in entries)
    return raw + bytes(CLUSTER - len(raw))
