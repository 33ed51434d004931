"""Delta packs: what is made comes back, and what somebody made up never becomes a block."""

import contextlib
import random
import struct
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import delta, delta_record
from oscirc_blockstore.delta import PAGE_SIZE, MadePatch, MadeRecord, Run, Source
from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    FrameRefusedError,
    IntegrityError,
    OldBlockMissingError,
    OscircError,
)
from oscirc_blockstore.table import NODE_SIZE

BLOCK = 65536
PAGES = BLOCK // PAGE_SIZE
NEW, BASE = digest_of(b"new"), digest_of(b"base")
RANDOM = random.Random(7)
OLD = [RANDOM.randbytes(BLOCK) for _ in range(3)]
STORE = {digest_of(raw): raw for raw in OLD}
LITERALS = bytearray(OLD[2][5 * PAGE_SIZE : 8 * PAGE_SIZE])
LITERALS[100:120] = b"twenty other letters"
RUNS = (
    Run(digest_of(OLD[0]), 2, 4),
    Run(Source.ZEROS, 0, 1),
    Run(Source.LITERAL, 0, 2),
    Run(digest_of(OLD[1]), 0, 8),
    Run(Source.LITERAL, 0, 1),
)
DICTIONARY = (Run(digest_of(OLD[2]), 4, 6),)
CONTENT = (
    OLD[0][2 * PAGE_SIZE : 6 * PAGE_SIZE]
    + bytes(PAGE_SIZE)
    + bytes(LITERALS[: 2 * PAGE_SIZE])
    + OLD[1][: 8 * PAGE_SIZE]
    + bytes(LITERALS[2 * PAGE_SIZE :])
)
FRAME = delta_record.encode(bytes(LITERALS), OLD[2][4 * PAGE_SIZE : 10 * PAGE_SIZE])
OLD_NODE = RANDOM.randbytes(NODE_SIZE)
NODE = bytearray(OLD_NODE)
NODE[32 * 7 : 32 * 8] = digest_of(CONTENT)
NODE[32 * 1023 :] = ZERO_DIGEST
PATCH = MadePatch(digest_of(NODE), digest_of(OLD_NODE), ((7, digest_of(CONTENT)), (1023, ZERO_DIGEST)))
STORE[digest_of(OLD_NODE)] = OLD_NODE
MADE = [
    MadeRecord(digest_of(CONTENT), 40_000, len(FRAME), RUNS, DICTIONARY),
    MadeRecord(digest_of(b"whole only"), 12_345),
]
INDEX = delta.build_index(NEW, BASE, BLOCK, MADE, [PATCH])


def record_of(runs=RUNS, dictionary=DICTIONARY, frame=FRAME, content=CONTENT, block_size=BLOCK):
    made = MadeRecord(digest_of(content), 40_000, len(frame), tuple(runs), tuple(dictionary))
    index = delta.parse_index(delta.build_index(NEW, BASE, block_size, [made], []))
    return index.records[digest_of(content)]


def test_an_index_comes_back():
    index = delta.parse_index(INDEX)
    assert (index.manifest, index.base, index.block_size) == (NEW, BASE, BLOCK)
    assert index.length == len(INDEX) + len(FRAME)
    record = index.records[digest_of(CONTENT)]
    assert (record.runs, record.dictionary) == (RUNS, DICTIONARY)
    assert (record.whole_length, record.offset, record.length) == (40_000, len(INDEX), len(FRAME))
    assert record.sources == {digest_of(raw) for raw in OLD}
    whole = index.records[digest_of(b"whole only")]
    assert (whole.is_rebuildable, whole.whole_length, whole.sources) == (False, 12_345, frozenset())
    assert list(index.nodes[PATCH.digest].entries) == list(PATCH.entries)


def test_the_same_pair_gives_the_same_index():
    assert delta.build_index(NEW, BASE, BLOCK, MADE, [PATCH]) == INDEX


def test_a_block_is_rebuilt_from_old_pages_and_a_frame_smaller_than_its_literals():
    assert len(FRAME) < 200
    assert delta_record.rebuild(record_of(), FRAME, STORE.get) == CONTENT


def test_a_block_of_copies_alone_needs_no_frame():
    record = record_of([Run(digest_of(OLD[1]), 0, PAGES)], (), b"", OLD[1])
    assert delta_record.rebuild(record, b"", STORE.get) == OLD[1]


def test_a_block_of_literals_alone_needs_no_old_block():
    frame = delta_record.encode(OLD[0], b"")
    record = record_of([Run(Source.LITERAL, 0, PAGES)], (), frame, OLD[0])
    assert record.sources == frozenset()
    assert delta_record.rebuild(record, frame, {}.get) == OLD[0]


def test_nodes_are_rebuilt_from_an_old_one_or_from_none():
    patch = delta.parse_index(INDEX).nodes[PATCH.digest]
    assert delta_record.rebuild_node(patch, STORE.get) == NODE
    fresh = bytearray(NODE_SIZE)
    fresh[32:64] = digest_of(CONTENT)
    made = MadePatch(digest_of(fresh), ZERO_DIGEST, ((1, digest_of(CONTENT)),))
    index = delta.parse_index(delta.build_index(NEW, BASE, BLOCK, MADE, [made]))
    assert delta_record.rebuild_node(index.nodes[made.digest], {}.get) == fresh


def test_what_needs_an_old_block_that_is_not_here_says_so():
    lacking = {digest: raw for digest, raw in STORE.items() if raw is not OLD[1]}
    with pytest.raises(OldBlockMissingError):
        delta_record.rebuild(record_of(), FRAME, lacking.get)
    with pytest.raises(OldBlockMissingError):
        delta_record.rebuild_node(delta.parse_index(INDEX).nodes[PATCH.digest], {}.get)


def test_a_block_is_no_node_and_a_node_no_block():
    record = record_of([Run(digest_of(OLD_NODE), 0, PAGES)], (), b"", OLD[1])
    with pytest.raises(DocumentRefusedError):
        delta_record.rebuild(record, b"", STORE.get)
    made = MadePatch(digest_of(NODE), digest_of(OLD[0]), ((7, digest_of(CONTENT)),))
    patch = delta.parse_index(delta.build_index(NEW, BASE, BLOCK, MADE, [made])).nodes[made.digest]
    with pytest.raises(DocumentRefusedError):
        delta_record.rebuild_node(patch, STORE.get)


@pytest.mark.parametrize(
    ("runs", "dictionary"),
    [
        (RUNS[:-1], DICTIONARY),
        ((*RUNS, RUNS[0]), DICTIONARY),
        ((*RUNS[:-1], Run(Source.LITERAL, 3, 1)), DICTIONARY),
        ((Run(digest_of(OLD[0]), PAGES - 1, 2), *RUNS[1:]), DICTIONARY),
        ((Run(digest_of(OLD[0]), 0, 0), *RUNS), DICTIONARY),
        (RUNS, (Run(Source.ZEROS, 0, 1),)),
        (RUNS, (Run(Source.LITERAL, 0, 1),)),
        (RUNS, (Run(digest_of(OLD[2]), 0, PAGES),) * 17),
    ],
)
def test_runs_that_make_no_block_are_refused(runs, dictionary):
    with pytest.raises(DocumentRefusedError):
        delta_record.rebuild(record_of(runs, dictionary), FRAME, STORE.get)


def test_a_record_needs_256_old_blocks_at_most():
    others = [digest_of(bytes([n % 256, n // 256])) for n in range(257)]
    block_size = 1 << 20
    runs = [Run(other, n % 256, 1) for n, other in enumerate(others[:256])]
    assert len(record_of(runs, (), b"", b"", block_size).sources) == 256
    with pytest.raises(DocumentRefusedError):
        assert record_of(runs, [Run(others[256], 0, 1)], b"", b"", block_size).sources


def frame_of(raw, **options):
    return zstandard.ZstdCompressor(**options).compress(raw)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        FRAME[:-1],
        FRAME + b"\0",
        frame_of(bytes(LITERALS) + b"1"),
        frame_of(bytes(LITERALS), write_content_size=False),
        struct.pack("<II", 0x184D2A50, 8) + bytes(8),
        bytes(len(LITERALS) + 2000),
        b"\x28\xb5\x2f\xfd\xff" + bytes(40),
    ],
)
def test_a_frame_of_another_form_is_refused(frame):
    with pytest.raises((FrameRefusedError, DigestMismatchError)):
        delta_record.rebuild(record_of(frame=frame), frame, STORE.get)


def test_a_frame_of_other_pages_is_refused():
    other = delta_record.encode(bytes(len(LITERALS)), b"")
    with pytest.raises(DigestMismatchError):
        delta_record.rebuild(record_of(frame=other), other, STORE.get)


def test_a_bomb_costs_no_memory():
    frame = frame_of(bytes(1 << 30), level=1)
    record = record_of(frame=frame)
    tracemalloc.start()
    with pytest.raises(FrameRefusedError):
        delta_record.rebuild(record, frame, STORE.get)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_a_bomb_of_an_index_is_refused_by_its_head():
    packed = frame_of(bytes(1 << 28), level=1)
    head = struct.pack("<8sII32s32sII", delta.MAGIC, len(packed), 1 << 28, NEW, BASE, BLOCK, 0)
    with pytest.raises(DocumentRefusedError):
        delta.index_length(head)
    head = struct.pack("<8sII32s32sII", delta.MAGIC, len(packed), 1 << 20, NEW, BASE, BLOCK, 0)
    with pytest.raises(DocumentRefusedError):
        delta.parse_index(head + packed)


def test_an_index_of_more_than_the_new_version_has_is_refused_before_it_takes_memory():
    count = 200_000
    digests = b"".join(struct.pack("<QQQQ", number + 1, 0, 0, 0) for number in range(count))
    numbers = struct.pack(f"<{count}I", *range(count))
    body = struct.pack("<5I", count, count, 0, 0, 0) + digests + numbers + bytes(8 * count)
    index = repacked(body)
    tracemalloc.start()
    with pytest.raises(DocumentRefusedError, match="of 1000"):
        delta.parse_index(index, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body)
    assert len(delta.parse_index(INDEX, 100).records) == len(delta.parse_index(INDEX).records)


def test_an_index_of_digests_that_nothing_refers_to_is_refused():
    digests = b"".join(struct.pack("<QQQQ", number + 1, 0, 0, 0) for number in range(1000))
    with pytest.raises(DocumentRefusedError, match="does not use"):
        delta.parse_index(repacked(struct.pack("<5I", 1000, 0, 0, 0, 0) + digests))


def body_of(index):
    return zstandard.ZstdDecompressor().decompress(index[delta.HEAD_SIZE :])


def repacked(body):
    packed = frame_of(bytes(body))
    return struct.pack("<8sII32s32sII", delta.MAGIC, len(packed), len(body), NEW, BASE, BLOCK, 0) + packed


def used(raw):
    """All that a reader does with an index and its frames."""
    index = delta.parse_index(raw)
    file = raw + FRAME
    for record in index.records.values():
        if record.is_rebuildable:
            frame = file[record.offset : record.offset + record.length]
            if len(frame) == record.length:
                assert digest_of(delta_record.rebuild(record, frame, STORE.get)) == record.digest
    for patch in index.nodes.values():
        assert digest_of(delta_record.rebuild_node(patch, STORE.get)) == patch.digest


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_change_to_an_index_makes_a_wrong_block(data):
    body = bytearray(body_of(INDEX))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(IntegrityError, OldBlockMissingError):
        used(repacked(body))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_to_a_frame_makes_a_wrong_block(data):
    frame = bytearray(FRAME)
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(IntegrityError):  # what means the same to zstd makes the right block
        assert delta_record.rebuild(record_of(), bytes(frame), STORE.get) == CONTENT


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_anything_else_is_refused(raw):
    for attempt in (raw, delta.MAGIC + raw, INDEX[: delta.HEAD_SIZE] + raw):
        with pytest.raises(OscircError):
            delta.parse_index(attempt)


def test_each_byte_of_the_index_counts():
    for at in range(0, len(INDEX), 7):
        changed = bytearray(INDEX)
        changed[at] ^= 0x55
        with contextlib.suppress(IntegrityError, OldBlockMissingError):
            used(bytes(changed))
