"""Delta packs: blocks of a new version as pages of old blocks and a remainder; this module is the index in front.

`docs/adr/0013-delta-packs.md` has the reasons, `docs/formats.md` the layout. A pack comes from whoever serves it and
is trusted with nothing: what `delta_record` makes of a record counts only where it hashes to the digest that it is
given out under, and the caller uses it only where the signed table names that digest. What a lying pack can waste, in
bytes, memory and time, is bounded here before any of it is believed:

- the index states its lengths first, and is a zstd frame of just the stated size, at most `MAX_INDEX_BYTES`;
- it is columns of integers whose lengths add up exactly; nothing in it is repeated or nested;
- a record refers to at most `MAX_SOURCES` old blocks, and to `MAX_DICTIONARY_BYTES` of dictionary; what it says is
  looked at when the record is used, and then all of it.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from oscirc_blockstore.digests import DIGEST_SIZE, ZERO_DIGEST, Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.frame import max_frame_bytes, pack, unpack
from oscirc_blockstore.table import BLOCK_SIZES, FANOUT

MAGIC = b"OSCDLTA1"
PAGE_SIZE = 4096
MAX_INDEX_BYTES = 64 << 20
MAX_SOURCES = 256
MAX_DICTIONARY_BYTES = 1 << 20
INDEX_LEVEL = 19
NAME_PREFIX = "from-"
_HEAD = struct.Struct("<8sII32s32sII")
HEAD_SIZE = _HEAD.size
_COUNTS = struct.Struct("<IIIII")
_NONE = 0xFFFFFFFF
_ZEROS = 0xFFFFFFFE
_INDEX_WINDOW_LOG = 23


class Columns(NamedTuple):
    """Runs, not looked at yet: numbers of old blocks (or what stands for literals and zeros), first pages, pages."""

    numbers: array[int]
    pages: array[int]
    counts: array[int]


class Source(Enum):
    """Where a page comes from, if not from an old block."""

    LITERAL = "literal"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True)
class Run:
    """`count` pages: literal, zeros, or those of the old block `source` from its page `page` on."""

    source: Digest | Source
    page: int
    count: int


@dataclass(frozen=True)
class Record:
    """How the block `digest` is made; its frame of `length` bytes stands at `offset` of the file.

    `whole_length` is what its block file costs. A record without runs states only that.
    """

    digest: Digest
    whole_length: int
    offset: int
    length: int
    block_size: int
    _runs: Columns = field(repr=False)
    _dictionary: Columns = field(repr=False)
    _digests: Sequence[Digest] = field(repr=False)

    @property
    def is_rebuildable(self) -> bool:
        """Whether it says how to make the block."""
        return bool(self._runs.numbers)

    @cached_property
    def sources(self) -> frozenset[Digest]:
        """The old blocks that it needs; `DocumentRefusedError` where they are not in the pack, or too many."""
        numbers = set(self._runs.numbers) | set(self._dictionary.numbers)
        numbers -= {_NONE, _ZEROS}
        if len(numbers) > MAX_SOURCES:
            raise DocumentRefusedError(f"a record of a delta pack needs {len(numbers)} old blocks")
        return frozenset(_named(self._digests, number) for number in numbers)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The block's pages in order; `DocumentRefusedError` unless they are just the block."""
        runs = tuple(self._checked(self._runs))
        if sum(run.count for run in runs) * PAGE_SIZE != self.block_size:
            raise DocumentRefusedError("a record of a delta pack does not have the block's length")
        return runs

    @cached_property
    def dictionary(self) -> tuple[Run, ...]:
        """The pages of old blocks with which the literal pages are compressed, in order."""
        runs = tuple(self._checked(self._dictionary))
        if any(isinstance(run.source, Source) for run in runs):
            raise DocumentRefusedError("a dictionary in a delta pack is not of old pages")
        if sum(run.count for run in runs) * PAGE_SIZE > MAX_DICTIONARY_BYTES:
            raise DocumentRefusedError("a dictionary in a delta pack is too large")
        return runs

    @property
    def literal_bytes(self) -> int:
        """Bytes of literal pages: the content of the record's frame."""
        return sum(run.count for run in self.runs if run.source is Source.LITERAL) * PAGE_SIZE

    def _checked(self, columns: Columns) -> Iterator[Run]:
        pages = self.block_size // PAGE_SIZE
        for number, page, count in zip(*columns, strict=True):
            source = Source.LITERAL if number == _NONE else Source.ZEROS if number == _ZEROS else None
            if not count or page + count > pages or (source is not None and page):
                raise DocumentRefusedError("a delta pack names pages that no block has")
            yield Run(source or _named(self._digests, number), page, count)


@dataclass(frozen=True)
class NodePatch:
    """How the node `digest` is made: of the node `base` (the zero digest: of nothing), entries replaced."""

    digest: Digest
    base: Digest
    _slots: array[int] = field(repr=False)
    _numbers: array[int] = field(repr=False)
    _digests: Sequence[Digest] = field(repr=False)

    @property
    def entries(self) -> Iterator[tuple[int, Digest]]:
        """(slot, new digest); `DocumentRefusedError` where a node has no such slot."""
        for slot, number in zip(self._slots, self._numbers, strict=True):
            if slot >= FANOUT:
                raise DocumentRefusedError("a delta pack changes an entry that no node has")
            yield slot, ZERO_DIGEST if number == _NONE else _named(self._digests, number)


@dataclass(frozen=True)
class DeltaIndex:
    """What a pack says: how to come from the disk `base` to the disk `manifest` (digests of manifests)."""

    manifest: Digest
    base: Digest
    block_size: int
    records: Mapping[Digest, Record]
    nodes: Mapping[Digest, NodePatch]
    length: int
    """Bytes of the whole file."""


@dataclass(frozen=True, slots=True)
class MadeRecord:
    """A record as its maker gives it; `runs` empty: it states only what the whole frame costs."""

    digest: Digest
    whole_length: int
    length: int = 0
    runs: tuple[Run, ...] = ()
    dictionary: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class MadePatch:
    """A node patch as its maker gives it."""

    digest: Digest
    base: Digest
    entries: tuple[tuple[int, Digest], ...]


def name_for(base: Digest) -> str:
    """The name under which the pack from that version is listed."""
    return NAME_PREFIX + base.hex()[:32]


def build_index(
    manifest: Digest,
    base: Digest,
    block_size: int,
    records: Iterable[MadeRecord],
    nodes: Iterable[MadePatch],
    *,
    level: int = INDEX_LEVEL,
) -> bytes:
    """The bytes in front of the first frame; the frames follow in the order of `records`."""
    numbers: dict[Digest, int] = {}

    def number(source: Digest | Source) -> int:
        if isinstance(source, Source):
            return _NONE if source is Source.LITERAL else _ZEROS
        return numbers.setdefault(source, len(numbers))

    made, patches = list(records), list(nodes)
    for record in made:
        number(record.digest)
    record_columns = _columns("IIIHH")
    runs = _columns("IHH")
    for record in made:
        _append(
            record_columns,
            (numbers[record.digest], record.whole_length, record.length, len(record.runs), len(record.dictionary)),
        )
        for run in (*record.runs, *record.dictionary):
            _append(runs, (number(run.source), run.page, run.count))
    node_columns, entries = _columns("III"), _columns("HI")
    for patch in patches:
        parent = _NONE if patch.base == ZERO_DIGEST else number(patch.base)
        _append(node_columns, (number(patch.digest), parent, len(patch.entries)))
        for slot, digest in patch.entries:
            _append(entries, (slot, _NONE if digest == ZERO_DIGEST else number(digest)))
    counts = (len(numbers), len(patches), len(entries[0]), len(made), len(runs[0]))
    body = b"".join(
        [_COUNTS.pack(*counts), *numbers, *(_little(c) for c in (*node_columns, *entries, *record_columns, *runs))]
    )
    packed = pack(body, level=level, window_log=_INDEX_WINDOW_LOG, checksum=True)
    if len(body) > MAX_INDEX_BYTES or HEAD_SIZE + len(packed) > MAX_INDEX_BYTES:
        raise DocumentRefusedError("these versions differ in more than a delta pack can say")
    return _HEAD.pack(MAGIC, len(packed), len(body), manifest, base, block_size, 0) + packed


def index_length(head: bytes) -> int:
    """How many bytes the index has, from the file's first `HEAD_SIZE`; `DocumentRefusedError` for another file."""
    if len(head) < HEAD_SIZE:
        raise DocumentRefusedError("the delta pack is cut off in its head")
    magic, packed, size, _, _, block_size, zero = _HEAD.unpack(head[:HEAD_SIZE])
    if magic != MAGIC or zero or block_size not in BLOCK_SIZES:
        raise DocumentRefusedError("not a delta pack that this version reads")
    if HEAD_SIZE + packed > MAX_INDEX_BYTES or not _COUNTS.size <= size <= MAX_INDEX_BYTES:
        raise DocumentRefusedError(f"a delta pack with an index of {packed} bytes for {size} is not allowed")
    return int(HEAD_SIZE + packed)


def parse_index(raw: bytes, most_made: int | None = None) -> DeltaIndex:
    """The index of a pack, its lengths checked; raise `DocumentRefusedError`.

    `most_made`: how many blocks and nodes the new version can have. Whoever reads a stranger's pack should give it: in
    memory a record takes hundreds of times the bytes that it takes packed.
    """
    if len(raw) != index_length(raw):
        raise DocumentRefusedError("the delta pack's index is cut off")
    _, _, size, manifest, base, block_size, _ = _HEAD.unpack(raw[:HEAD_SIZE])
    body = unpack(raw[HEAD_SIZE:], size, window_log=_INDEX_WINDOW_LOG, what="a delta pack's index")
    digest_count, node_count, entry_count, record_count, run_count = _COUNTS.unpack(body[: _COUNTS.size])
    expected = _COUNTS.size + DIGEST_SIZE * digest_count + 12 * node_count + 6 * entry_count
    if expected + 16 * record_count + 8 * run_count != len(body):
        raise DocumentRefusedError("a delta pack's index contradicts its counts")
    if most_made is not None and record_count + node_count > most_made:
        raise DocumentRefusedError(f"a delta pack makes {record_count + node_count} blocks and nodes of {most_made}")
    if digest_count > record_count + 2 * node_count + entry_count + run_count:
        raise DocumentRefusedError("a delta pack names what it does not use")
    at = _COUNTS.size
    view = memoryview(body)
    digests = [
        Digest(bytes(view[start : start + DIGEST_SIZE]))
        for start in range(at, at + DIGEST_SIZE * digest_count, DIGEST_SIZE)
    ]
    if ZERO_DIGEST in digests or len(set(digests)) != digest_count:
        raise DocumentRefusedError("a delta pack names zeros, or something twice")
    at += DIGEST_SIZE * digest_count
    taken = []
    for codes, count in (("III", node_count), ("HI", entry_count), ("IIIHH", record_count), ("IHH", run_count)):
        for code in codes:
            column = array(code)
            column.frombytes(view[at : at + column.itemsize * count])
            if sys.byteorder == "big":
                column.byteswap()
            taken.append(column)
            at += column.itemsize * count
    nodes = _parse_nodes(digests, taken[0:3], taken[3:5])
    records = _parse_records(digests, block_size, len(raw), taken[5:10], taken[10:13])
    end = max((record.offset + record.length for record in records.values()), default=len(raw))
    return DeltaIndex(Digest(manifest), Digest(base), block_size, records, nodes, end)


def _parse_nodes(
    digests: Sequence[Digest], columns: Sequence[array[int]], entries: Sequence[array[int]]
) -> dict[Digest, NodePatch]:
    nodes: dict[Digest, NodePatch] = {}
    at = 0
    for number, parent, count in zip(*columns, strict=True):
        digest = _named(digests, number)
        base = ZERO_DIGEST if parent == _NONE else _named(digests, parent)
        nodes[digest] = NodePatch(digest, base, entries[0][at : at + count], entries[1][at : at + count], digests)
        at += count
    if at != len(entries[0]) or len(nodes) != len(columns[0]):
        raise DocumentRefusedError("a delta pack's nodes contradict their entries")
    return nodes


def _parse_records(
    digests: Sequence[Digest],
    block_size: int,
    start: int,
    columns: Sequence[array[int]],
    runs: Sequence[array[int]],
) -> dict[Digest, Record]:
    records: dict[Digest, Record] = {}
    at, offset, most = 0, start, max_frame_bytes(block_size)

    def cut(count: int) -> Columns:
        nonlocal at
        at += count
        return Columns(*(column[at - count : at] for column in runs))

    for number, whole, length, run_count, dictionary_count in zip(*columns, strict=True):
        if not 0 < whole <= most or length > most or (not run_count and (length or dictionary_count)):
            raise DocumentRefusedError("a record of a delta pack has a length that none can have")
        digest = _named(digests, number)
        records[digest] = Record(
            digest, whole, offset, length, block_size, cut(run_count), cut(dictionary_count), digests
        )
        offset += length
    if at != len(runs[0]) or len(records) != len(columns[0]):
        raise DocumentRefusedError("a delta pack's records contradict their runs")
    return records


def _named(digests: Sequence[Digest], number: int) -> Digest:
    if number >= len(digests):
        raise DocumentRefusedError("a delta pack refers to a digest that it does not have")
    return digests[number]


def _columns(codes: str) -> list[array[int]]:
    return [array(code) for code in codes]


def _append(columns: Sequence[array[int]], values: Sequence[int]) -> None:
    for column, value in zip(columns, values, strict=True):
        column.append(value)


def _little(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
