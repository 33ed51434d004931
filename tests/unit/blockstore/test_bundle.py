"""Bundles come back, progressively, and lying ones are refused before they cost more than they declare."""

import os
import random
import struct
import tracemalloc

import pytest
import zstandard

from oscirc_blockstore import bundle
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, FrameRefusedError, OscircError
from oscirc_blockstore.segment import SegmentSource, decode
from oscirc_blockstore.table import NODE_SIZE, Geometry

BLOCK = 65536
MANIFEST = digest_of(b"manifest")
NODES = [os.urandom(16) * 2048 for _ in range(2)]
BLOCKS = [os.urandom(32) * 2048 for _ in range(140)]
RAW = {digest_of(raw): raw for raw in NODES + BLOCKS}
ENTRIES = [Entry(digest_of(raw), len(raw)) for raw in NODES + BLOCKS]
GROUPS = list(bundle.cut(ENTRIES))
FRAMES = [bundle.compress_segment([RAW[e.digest] for e in group], 3) for group in GROUPS]
FILE = b"".join(bundle.build(MANIFEST, BLOCK, GROUPS, FRAMES))
INDEX_SIZE = bundle.index_length(FILE[: bundle.HEAD_SIZE])


class Pieces:
    """A source that gives at most `step` bytes at once."""

    def __init__(self, data, step=10_000):
        self.data, self.step, self.given = data, step, 0

    def read(self, size):
        raw = self.data[self.given :][: min(size, self.step)]
        self.given += len(raw)
        return raw


def decode_into(found, segment, data, step=10_000):
    for entry, raw in decode(segment, SegmentSource(Pieces(data, step), segment.length)):
        found[entry.digest] = raw


def read(index, file, step=10_000):
    found = {}
    for segment in index.segments:
        decode_into(found, segment, file[segment.offset : segment.offset + segment.length], step)
    return found


def test_everything_comes_back_in_order():
    index = bundle.parse_index(FILE[:INDEX_SIZE])
    assert (index.manifest, index.block_size, index.length) == (MANIFEST, BLOCK, len(FILE))
    assert len(index.segments) == 2
    assert [e for s in index.segments for e in s.entries] == ENTRIES
    assert list(read(index, FILE)) == [e.digest for e in ENTRIES]
    assert read(index, FILE, step=1) == RAW


def test_the_same_input_gives_the_same_file():
    frames = [bundle.compress_segment([RAW[e.digest] for e in group], 3) for group in GROUPS]
    assert b"".join(bundle.build(MANIFEST, BLOCK, GROUPS, frames)) == FILE


def test_a_block_is_found_before_its_segment_is_whole():
    segment = bundle.parse_index(FILE[:INDEX_SIZE]).segments[0]
    pieces = Pieces(FILE[segment.offset : segment.offset + segment.length], step=1000)
    entries = decode(segment, SegmentSource(pieces, segment.length))
    for _ in range(20):
        next(entries)
    assert pieces.given < segment.length // 2


def test_an_empty_bundle_is_an_index():
    file = b"".join(bundle.build(MANIFEST, BLOCK, [], []))
    assert bundle.parse_index(file).segments == ()


def test_every_altered_index_byte_is_refused_or_only_names_other_digests():
    generator = random.Random(5)
    for at in [*range(bundle.HEAD_SIZE + 48), *(generator.randrange(INDEX_SIZE) for _ in range(200))]:
        damaged = bytearray(FILE[:INDEX_SIZE])
        damaged[at] ^= 1 << generator.randrange(8)
        try:
            index = bundle.parse_index(bytes(damaged[: bundle.index_length(bytes(damaged[: bundle.HEAD_SIZE]))]))
            found = read(index, FILE)
        except OscircError:
            continue
        assert all(digest_of(raw) == digest for digest, raw in found.items())


def test_any_altered_segment_byte_never_gives_a_wrong_block():
    index = bundle.parse_index(FILE[:INDEX_SIZE])
    generator = random.Random(6)
    segment = index.segments[-1]
    data = FILE[segment.offset : segment.offset + segment.length]
    for _ in range(150):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        found = {}
        with pytest.raises((FrameRefusedError, DigestMismatchError)):
            decode_into(found, segment, bytes(damaged))
            raise FrameRefusedError("harmless")
        assert all(digest_of(raw) == digest for digest, raw in found.items())


def one_segment(frame, raw_length=BLOCK, length=None):
    return bundle.Segment(0, len(frame) if length is None else length, (Entry(digest_of(b"x"), raw_length),))


def test_a_bomb_is_refused_unopened():
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    with pytest.raises(FrameRefusedError, match="not the frame"):
        decode_into({}, one_segment(bomb), bomb)


def test_a_bomb_that_lies_about_its_size_costs_a_bounded_amount():
    block = struct.pack("<I", 1 << 1 | (128 * 1024) << 3)[:3] + b"\0"  # RLE: 128 KiB of zeros in 4 bytes
    bomb = b"\x28\xb5\x2f\xfd\x80\x38" + struct.pack("<I", BLOCK) + block * 10_000
    tracemalloc.start()
    with pytest.raises(FrameRefusedError):
        decode_into({}, one_segment(bomb), bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_too_short_too_long_and_skippable_segments_are_refused():
    good = bundle.compress_segment([bytes(BLOCK)], 3)
    for segment, data in (
        (one_segment(good, length=len(good) - 1), good),
        (one_segment(good[:-1]), good[:-1]),
        (one_segment(good, raw_length=2 * BLOCK), good),
        (one_segment(b"\x50\x2a\x4d\x18" + bytes(30)), b"\x50\x2a\x4d\x18" + bytes(30)),
    ):
        with pytest.raises((FrameRefusedError, DigestMismatchError)):
            decode_into({}, segment, data)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"OSCBNDL2" + bytes(48),
        struct.pack("<8sII32sII", b"OSCBNDL1", 5, 2, MANIFEST, BLOCK, 0),
        struct.pack("<8sII32sII", b"OSCBNDL1", 1, 1 << 31, MANIFEST, BLOCK, 0),
        struct.pack("<8sII32sII", b"OSCBNDL1", 1, 1, MANIFEST, 12345, 0),
        struct.pack("<8sII32sII", b"OSCBNDL1", 1, 1, MANIFEST, BLOCK, 1),
    ],
)
def test_heads_that_no_tool_writes_are_refused(head):
    with pytest.raises(DocumentRefusedError):
        bundle.index_length(head)


def test_the_bounds_are_met_by_a_bundle_of_the_whole_disk():
    geometry = Geometry(2 * 1024 * BLOCK + 512, BLOCK)  # three leaves below a root
    allowed = bundle.bounds(geometry, geometry.block_count)
    assert allowed.entries == geometry.block_count + 3 + 1
    content = geometry.block_count * BLOCK + 4 * NODE_SIZE
    assert content < allowed.length < content * 1.03


def test_a_disk_with_few_blocks_allows_few_entries_however_large_it_is():
    assert bundle.bounds(Geometry(1 << 46, BLOCK), 3).entries == 3 + 3 * 2 + 1
    assert bundle.bounds(Geometry(1 << 46, BLOCK), 0).entries == 0


def test_more_entries_than_the_disk_has_blocks_are_refused_before_the_index_is_read():
    with pytest.raises(DocumentRefusedError, match="142 entries"):
        bundle.index_length(FILE[: bundle.HEAD_SIZE], 141)
    assert bundle.index_length(FILE[: bundle.HEAD_SIZE], 142) == INDEX_SIZE
    with pytest.raises(DocumentRefusedError):
        bundle.parse_index(FILE[:INDEX_SIZE], 141)


def test_an_entry_that_repeats_and_one_that_names_zeros_are_refused():
    for entries, said in (([ENTRIES[0]] * 2, "twice"), ([Entry(bytes(32), BLOCK)], "zeros")):
        raw = bundle.build_index(MANIFEST, BLOCK, [tuple(entries)], [100])
        with pytest.raises(DocumentRefusedError, match=said):
            bundle.parse_index(raw)


@pytest.mark.timeout(60)  # copying the rest of the index for each entry would take many minutes
def test_an_index_of_many_entries_is_parsed_in_time_that_grows_with_their_number():
    entries = [Entry(number.to_bytes(32, "big"), BLOCK) for number in range(1, 300_000)]
    groups = list(bundle.cut(entries))
    raw = bundle.build_index(MANIFEST, BLOCK, groups, [10] * len(groups))
    assert len(bundle.parse_index(raw).segments) == len(groups)


def with_window(frame, log):
    """The same frame with a window of its own instead of its content's size."""
    return frame[:4] + bytes([frame[4] & ~0x20, (log - 10) << 3]) + frame[5:]


def test_a_window_as_large_as_a_segment_is_allowed_and_a_larger_one_is_refused():
    raw = os.urandom(BLOCK)
    frame = zstandard.ZstdCompressor().compress(raw)
    entries = (Entry(digest_of(raw), BLOCK),)
    for log in (23, 24, 27):
        wide, found = with_window(frame, log), {}
        segment = bundle.Segment(0, len(wide), entries)
        if log > 23:
            with pytest.raises(FrameRefusedError, match="does not decode"):
                decode_into(found, segment, wide)
        else:
            decode_into(found, segment, wide)
        assert found == ({} if log > 23 else {digest_of(raw): raw})
