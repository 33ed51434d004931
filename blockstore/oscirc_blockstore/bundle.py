"""Bundles: the nodes and blocks of a profile in one file, in the order in which they will be asked for.

`docs/adr/0006-profiles-and-bundles.md` has the reasons and the layout. A bundle comes from whoever serves it and is
trusted with nothing: `segment.decode` gives out only bytes that hash to the digest they are given out under, and the
caller uses them only where the signed table names that digest. What a lying bundle can waste, in bytes, memory and
time, is bounded by what a bundle of that disk can be at most (`bounds`), before any of it is parsed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import zstandard

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.table import BLOCK_SIZES, NODE_SIZE, Geometry, positions_below

MAGIC = b"OSCBNDL1"
SEGMENT_BYTES = 8 << 20
MAX_ENTRIES = 1 << 20
MAX_INDEX_BYTES = 64 << 20
MAX_OVERHEAD_BYTES = 1024  # by which a segment may be longer than its content, for each entry
DEFAULT_LEVEL = 19
_HEAD = struct.Struct("<8sII32sII")
_SEGMENT = struct.Struct("<QIIII")
HEAD_SIZE = _HEAD.size


@dataclass(frozen=True, slots=True)
class Entry:
    """A digest and the raw size of what it names: a node's, or the block size."""

    digest: Digest
    raw_size: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Where one zstd frame stands in the file (bytes), and the entries whose bytes it holds, in order."""

    offset: int
    length: int
    entries: tuple[Entry, ...]

    @property
    def raw_length(self) -> int:
        """Bytes of content."""
        return sum(entry.raw_size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class BundleIndex:
    """What a bundle says about itself."""

    manifest: Digest
    block_size: int
    segments: tuple[Segment, ...]

    @property
    def length(self) -> int:
        """Bytes of the whole file."""
        last = self.segments[-1] if self.segments else None
        return last.offset + last.length if last else index_size(0, 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a bundle of one disk can be."""

    entries: int
    length: int


def bounds(geometry: Geometry, data_blocks: int) -> Bounds:
    """Of a disk with so many blocks that are not zeros: a bundle names each block and each node at most once."""
    spans = (positions_below(level + 1) for level in range(geometry.depth))
    nodes = sum(min(data_blocks, -(-geometry.block_count // span)) for span in spans)
    entries = min(data_blocks + nodes, MAX_ENTRIES)
    content = data_blocks * geometry.block_size + nodes * NODE_SIZE
    return Bounds(entries, index_size(entries, entries) + content + MAX_OVERHEAD_BYTES * (data_blocks + nodes))


def index_size(segments: int, entries: int) -> int:
    """Bytes in front of the first segment."""
    return HEAD_SIZE + segments * _SEGMENT.size + entries * DIGEST_SIZE + -(-entries // 8)


def index_length(head: bytes, most_entries: int = MAX_ENTRIES) -> int:
    """How many bytes the index has, from the file's first `HEAD_SIZE`; `DocumentRefusedError` for another file."""
    if len(head) < HEAD_SIZE:
        raise DocumentRefusedError("the bundle is cut off in its head")
    magic, segments, entries, _, block_size, zero = _HEAD.unpack(head[:HEAD_SIZE])
    if magic != MAGIC or zero or block_size not in BLOCK_SIZES:
        raise DocumentRefusedError("not a bundle that this version reads")
    if not segments <= entries <= min(most_entries, MAX_ENTRIES):
        raise DocumentRefusedError(f"a bundle of {entries} entries in {segments} segments is not allowed")
    length = index_size(segments, entries)
    if length > MAX_INDEX_BYTES:
        raise DocumentRefusedError(f"a bundle's index of {length} bytes is not allowed")
    return length


def parse_index(raw: bytes, most_entries: int = MAX_ENTRIES) -> BundleIndex:
    """The index of a bundle, each length checked; raise `DocumentRefusedError`."""
    if len(raw) != index_length(raw, most_entries):
        raise DocumentRefusedError("the bundle's index is cut off")
    _, segment_count, entry_count, manifest, block_size, _ = _HEAD.unpack(raw[:HEAD_SIZE])
    digests_at = HEAD_SIZE + segment_count * _SEGMENT.size
    bitmap_at = digests_at + entry_count * DIGEST_SIZE
    entries = []
    for number in range(entry_count):
        at = digests_at + number * DIGEST_SIZE
        digest = Digest(raw[at : at + DIGEST_SIZE])
        if digest == ZERO_DIGEST:
            raise DocumentRefusedError("a bundle names zeros")
        is_node = raw[bitmap_at + number // 8] >> number % 8 & 1
        entries.append(Entry(digest, NODE_SIZE if is_node else block_size))
    if len({entry.digest for entry in entries}) != len(entries):
        raise DocumentRefusedError("a bundle names something twice")
    segments, taken, at = [], 0, len(raw)
    for number in range(segment_count):
        offset, length, raw_length, count, zero = _SEGMENT.unpack_from(raw, HEAD_SIZE + number * _SEGMENT.size)
        segment = Segment(offset, length, tuple(entries[taken : taken + count]))
        if not count or zero or offset != at or segment.raw_length != raw_length or taken + count > entry_count:
            raise DocumentRefusedError("a bundle's segments contradict its entries")
        if raw_length > SEGMENT_BYTES or not 0 < length <= raw_length + MAX_OVERHEAD_BYTES * count:
            raise DocumentRefusedError("a bundle's segment is larger than allowed")
        segments.append(segment)
        taken, at = taken + count, at + length
    if taken != entry_count:
        raise DocumentRefusedError("a bundle has entries outside its segments")
    return BundleIndex(Digest(manifest), block_size, tuple(segments))


def cut(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Entries in groups of at most `SEGMENT_BYTES` of content."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and size + entry.raw_size > SEGMENT_BYTES:
            yield tuple(group)
            group, size = [], 0
        group.append(entry)
        size += entry.raw_size
    if group:
        yield tuple(group)


def compress_segment(contents: Sequence[bytes], level: int = DEFAULT_LEVEL) -> bytes:
    """The frame around several blocks, its window as large as the segment."""
    raw = b"".join(contents)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(raw),
        window_log=max(10, (SEGMENT_BYTES - 1).bit_length()),
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def build_index(
    manifest: Digest, block_size: int, groups: Sequence[tuple[Entry, ...]], lengths: Sequence[int]
) -> bytes:
    """The bytes in front of the first segment; `lengths` are those of the frames, one for each group of `cut`."""
    entries = [entry for group in groups for entry in group]
    bitmap = bytearray(-(-len(entries) // 8))
    for number, entry in enumerate(entries):
        bitmap[number // 8] |= (entry.raw_size == NODE_SIZE) << number % 8
    parts = [_HEAD.pack(MAGIC, len(groups), len(entries), manifest, block_size, 0)]
    at = index_size(len(groups), len(entries))
    for group, length in zip(groups, lengths, strict=True):
        parts.append(_SEGMENT.pack(at, length, sum(entry.raw_size for entry in group), len(group), 0))
        at += length
    parts += [entry.digest for entry in entries]
    parts.append(bytes(bitmap))
    return b"".join(parts)


def build(
    manifest: Digest, block_size: int, groups: Sequence[tuple[Entry, ...]], frames: Sequence[bytes]
) -> Iterator[bytes]:
    """The file's bytes in pieces: the index, then the frames of `compress_segment`, one for each group of `cut`."""
    yield build_index(manifest, block_size, groups, [len(frame) for frame in frames])
    yield from frames
