import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import frame, table
from oscirc_blockstore.digests import ZERO_DIGEST, block_digest, digest_of
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.table import Geometry
from oscirc_publisher import building
from oscirc_publisher.building import build_table, data_bytes
from oscirc_publisher.uploading import Stored

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes

BLOCK = 64 * KIB


class MemorySink:
    """A store in memory that counts what is asked, kept, and held at once."""

    def __init__(self, known=()):
        self.frames = dict.fromkeys(known, (0, b""))
        self.asked = []
        self.questions = 0
        self.lock = threading.Lock()

    def missing(self, digests):
        with self.lock:
            self.asked += digests
            self.questions += 1
            return [digest for digest in digests if digest not in self.frames]

    def store(self, records):
        with self.lock:
            for record in records:
                self.frames[record.digest] = (record.raw_size, record.frame)
        return Stored(len(records), 0, sum(record.size for record in records))

    def load(self, digest):
        raw_size, raw_frame = self.frames[digest]
        return frame.decode_verified(raw_frame, raw_size, digest)


def expected_blocks(raw, block_size=BLOCK):
    found = {}
    for position, start in enumerate(range(0, len(raw), block_size)):
        digest = block_digest(raw[start : start + block_size].ljust(block_size, b"\0"))
        if digest != ZERO_DIGEST:
            found[position] = digest
    return found


def test_the_table_names_every_block_of_the_disk_where_it_stands():
    raw = mixed_bytes(70 * MIB + 1024)
    geometry = Geometry(len(raw), BLOCK)
    sink = MemorySink()
    built = build_table(MemoryDisk(raw), geometry, sink)
    assert dict(table.iterate_blocks(geometry, built.root, sink.load)) == expected_blocks(raw)
    contents = table.contents(geometry, built.root, sink.load)
    assert contents.data_blocks == built.data_blocks
    assert len(contents.blocks) == built.blocks == built.new_blocks
    assert len(contents.nodes) == built.nodes == built.new_nodes
    assert built.read_bytes == len(raw)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=8),
    workers=st.integers(1, 5),
    batch=st.sampled_from([BLOCK, 3 * BLOCK, 16 * BLOCK]),
    tail=st.integers(0, 127),
)
def test_extents_workers_and_batches_change_nothing(cuts, workers, batch, tail):
    size = 40 * BLOCK + tail * 512
    raw = bytearray(size)
    edges = sorted(cuts)
    extents = [ByteRange(a * BLOCK, b * BLOCK) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    for extent in extents:
        raw[extent.start : extent.stop] = mixed_bytes(extent.size, extent.start + 1)
    geometry = Geometry(size, BLOCK)
    plain = build_table(MemoryDisk(bytes(raw)), geometry, None)
    old, building.BATCH_BYTES = building.BATCH_BYTES, batch
    try:
        cut = build_table(MemoryDisk(bytes(raw), extents or [ByteRange(0, 0)]), geometry, MemorySink(), workers=workers)
    finally:
        building.BATCH_BYTES = old
    assert (plain.root, plain.data_blocks, plain.blocks) == (cut.root, cut.data_blocks, cut.blocks)


@pytest.mark.parametrize("block_size", table.BLOCK_SIZES)
def test_every_block_size(block_size):
    raw = mixed_bytes(3 * MIB + 4096)
    geometry = Geometry(len(raw), block_size)
    sink = MemorySink()
    built = build_table(MemoryDisk(raw), geometry, sink)
    assert dict(table.iterate_blocks(geometry, built.root, sink.load)) == expected_blocks(raw, block_size)


def test_only_missing_blocks_are_compressed(monkeypatch):
    raw = mixed_bytes(4 * MIB)
    geometry = Geometry(len(raw), BLOCK)
    known = list(expected_blocks(raw).values())
    encoded = []
    real = frame.encode
    monkeypatch.setattr(frame, "encode", lambda data, level: encoded.append(len(data)) or real(data, level))
    built = build_table(MemoryDisk(raw), geometry, MemorySink(known[:-1]))
    assert encoded.count(BLOCK) == 1
    assert built.new_blocks == 1


def test_the_order_of_the_frames_follows_from_what_is_missing_not_from_luck():
    sink = MemorySink()
    raw = mixed_bytes(MIB)
    build_table(MemoryDisk(raw), Geometry(len(raw), BLOCK), sink, workers=1)
    blocks = [digest for digest in sink.frames if sink.frames[digest][0] == BLOCK]
    assert blocks == list(dict.fromkeys(expected_blocks(raw).values()))


def test_memory_is_bounded_by_the_workers_not_the_disk(monkeypatch):
    """Blocks that were read and are not yet stored: at most one batch a worker, and what waits for more."""
    held, most = set(), 0
    lock = threading.Lock()

    class Counting(MemoryDisk):
        def read(self, offset, size):
            nonlocal most
            raw = super().read(offset, size)
            with lock:
                held.add(digest_of(raw))
                most = max(most, len(held))
            return raw

    class Releasing(MemorySink):
        def store(self, records):
            with lock:
                held.difference_update(record.digest for record in records)
            return Stored(len(records), 0, 0)

    import random

    monkeypatch.setattr(building, "BATCH_BYTES", 4 * MIB)
    monkeypatch.setattr(building, "GATHERED_BYTES", 2 * MIB)
    raw = random.Random(3).randbytes(48 * MIB)
    build_table(Counting(raw), Geometry(len(raw), BLOCK), Releasing(), workers=3)
    assert 0 < most <= (3 * building.BATCH_BYTES + building.GATHERED_BYTES) // BLOCK


def test_little_that_is_new_waits_for_more_of_it(monkeypatch):
    monkeypatch.setattr(building, "BATCH_BYTES", MIB)
    monkeypatch.setattr(building, "GATHERED_BYTES", 2 * MIB)
    raw = mixed_bytes(32 * MIB)
    geometry = Geometry(len(raw), BLOCK)
    sink = MemorySink(expected_blocks(raw).values())
    build_table(MemoryDisk(raw), geometry, sink, workers=1)
    assert sink.questions <= 32 * MIB // building.GATHERED_BYTES + 2


def test_a_digest_is_asked_for_once_even_among_workers():
    raw = (mixed_bytes(16 * BLOCK, 5)) * 40
    sink = MemorySink()
    build_table(MemoryDisk(raw), Geometry(len(raw), BLOCK), sink, workers=6)
    assert len(sink.asked) == len(set(sink.asked))


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(building, "_MAX_REMEMBERED", 10)
    raw = mixed_bytes(MIB) * 20
    sink = MemorySink()
    built = build_table(MemoryDisk(raw), Geometry(len(raw), BLOCK), sink, workers=1)
    assert dict(table.iterate_blocks(Geometry(len(raw), BLOCK), built.root, sink.load)) == expected_blocks(raw)


def test_nodes_are_sent_as_they_close(monkeypatch):
    monkeypatch.setattr(building, "_NODES_PER_BATCH", 2)
    positions = [slot * 1024 * BLOCK for slot in range(5)]
    size = 5 * 1024 * BLOCK
    base = mixed_bytes(BLOCK, 7)

    class Sparse(MemoryDisk):
        size = 5 * 1024 * BLOCK

        def __init__(self):
            super().__init__(b"", [ByteRange(at, at + BLOCK) for at in positions])

        def read(self, offset, count):
            return (offset.to_bytes(8) + base)[:count]

    sink = MemorySink()
    built = build_table(Sparse(), Geometry(size, BLOCK), sink)
    assert built.nodes == 6
    assert [position for position, _ in table.iterate_blocks(Geometry(size, BLOCK), built.root, sink.load)] == [
        slot * 1024 for slot in range(5)
    ]


def test_a_terabyte_of_hole_costs_what_its_data_costs():
    class Huge(MemoryDisk):
        size = 1 << 40

        def __init__(self):
            super().__init__(b"", [ByteRange((1 << 40) - BLOCK, 1 << 40)])

        def read(self, offset, count):
            self.read_ranges.append(offset)
            return b"x" * count

    disk = Huge()
    assert data_bytes(disk, BLOCK) == BLOCK
    built = build_table(disk, Geometry(disk.size, BLOCK), MemorySink())
    assert (built.data_blocks, built.nodes, len(disk.read_ranges)) == (1, 3, 1)


def test_failure_of_the_sink_stops_reading(monkeypatch):
    class Failing(MemorySink):
        def missing(self, digests):
            raise ValueError("no")

    monkeypatch.setattr(building, "BATCH_BYTES", MIB)
    monkeypatch.setattr(building, "GATHERED_BYTES", MIB)
    disk = MemoryDisk(mixed_bytes(64 * MIB))
    stop = threading.Event()
    with pytest.raises(ValueError, match="no"):
        build_table(disk, Geometry(disk.size, BLOCK), Failing(), workers=2, stop=stop)
    assert stop.is_set()
    assert sum(extent.size for extent in disk.read_ranges) < disk.size // 2
