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
