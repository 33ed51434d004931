import dataclasses
import json
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DeadlineExceededError, IntegrityError, UnreachableError, UsageError
from oscirc_remote.cache import CachedSource
from oscirc_remote.image import ImageReader

from .fakes import BLOCK_SIZE, FakeBlocks, block, make_image

POSITIONS = 12
DISK_SIZE = POSITIONS * BLOCK_SIZE - 3 * 512  # the last block is padded


def disk_of(positions):
    disk = bytearray(POSITIONS * BLOCK_SIZE)
    for position, raw in positions.items():
        disk[position * BLOCK_SIZE : position * BLOCK_SIZE + len(raw)] = raw
    return bytes(disk[:DISK_SIZE])


POSITIONS_WITH_DATA = {0: block(1), 1: block(2), 4: block(1), 7: block(3), 11: block(4)[: BLOCK_SIZE - 1536]}
DISK = disk_of(POSITIONS_WITH_DATA)


@pytest.fixture
def image(tmp_path):
    manifest, stored = make_image(POSITIONS_WITH_DATA, DISK_SIZE)
    inner = FakeBlocks(stored)
    reader = ImageReader(manifest, CachedSource(inner, tmp_path))
    yield reader, inner
    if inner.gate:
        inner.gate.set()
    reader.close()


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, POSITIONS - 1), st.integers(1, 6), max_size=POSITIONS),
    st.lists(st.tuples(st.integers(0, DISK_SIZE + 10), st.integers(0, 4 * BLOCK_SIZE)), min_size=1, max_size=12),
    st.booleans(),
)
def test_it_reads_as_the_disk_it_was_made_from(tmp_path_factory, layout, reads, small_memory):
    content = {position: block(number) for position, number in layout.items()}
    if POSITIONS - 1 in content:
        content[POSITIONS - 1] = content[POSITIONS - 1][: BLOCK_SIZE - 1536]
    disk = disk_of(content)
    manifest, stored = make_image(content, DISK_SIZE)
    memory = BLOCK_SIZE if small_memory else 1 << 20
    source = CachedSource(FakeBlocks(stored), tmp_path_factory.mktemp("cache"), block_memory_bytes=memory)
    reader = ImageReader(manifest, source)
    for offset, size in reads:
        expected = disk[offset : offset + size]
        assert reader.read(offset, size) == expected
        ready = reader.read_if_resident(offset, size)
        assert ready is not None
        assert bytes(ready) == expected
    reader.close()


def test_holes_are_read_without_any_fetch(image):
    reader, inner = image
    reader.read(0, 1)
    fetched = len(inner.fetched)
    assert reader.read(2 * BLOCK_SIZE, 2 * BLOCK_SIZE) == bytes(2 * BLOCK_SIZE)
    assert len(inner.fetched) == fetched


def test_only_the_blocks_that_are_read_are_fetched(image):
    reader, inner = image
    reader.read(BLOCK_SIZE - 10, 20)
    assert set(inner.fetched) == {reader.manifest.root.digest, digest_of(block(1)), digest_of(block(2))}


def test_equal_blocks_are_fetched_once(image):
    reader, inner = image
    assert reader.read(0, DISK_SIZE) == DISK
    assert inner.fetched.count(digest_of(block(1))) == 1


def test_what_is_not_resident_is_not_waited_for(image):
    reader, inner = image
    assert reader.read_if_resident(0, 10) is None
    assert inner.fetched == []
    reader.read(0, 10)
    assert bytes(reader.read_if_resident(0, 10)) == DISK[:10]
    assert reader.read_if_resident(BLOCK_SIZE - 1, 2) is None


def test_reads_are_clamped_at_the_end_of_the_disk(image):
    reader, _ = image
    assert reader.size == DISK_SIZE
    assert reader.read(DISK_SIZE - 5, 100) == DISK[-5:]
    assert reader.read(DISK_SIZE, 100) == b""
    assert reader.read(DISK_SIZE + 5000, 1) == b""
    assert reader.read(10, 0) == b""
    for offset, size in ((-1, 5), (5, -1)):
        with pytest.raises(UsageError):
            reader.read(offset, size)


def test_cold_blocks_of_one_read_are_fetched_side_by_side(image):
    reader, inner = image
    reader.read(2 * BLOCK_SIZE, 1)  # the table is there
    inner.gate = threading.Event()
    got = []
    thread = threading.Thread(target=lambda: got.append(reader.read(0, 2 * BLOCK_SIZE)))
    while inner.arrived.acquire(blocking=False):
        pass
    thread.start()
    assert inner.arrived.acquire(timeout=20)
    assert inner.arrived.acquire(timeout=20)  # the second one, while the first is still held
    inner.gate.set()
    thread.join(20)
    assert got == [DISK[: 2 * BLOCK_SIZE]]


@pytest.mark.parametrize("error", [UnreachableError("cut"), IntegrityError("lies")])
def test_a_read_that_cannot_be_served_raises_and_the_next_one_may_succeed(image, error):
    reader, inner = image
    inner.error = error
    with pytest.raises(type(error)):
        reader.read(0, 10)
    inner.error = None
    assert reader.read(0, 10) == DISK[:10]
    status = reader.status()
    assert (status.failed_reads, status.demand_stalls) == (1, 2)


def test_failing_reads_ends_those_under_way_and_refuses_new_ones_until_it_is_lifted(image):
    reader, inner = image
    inner.gate = threading.Event()
    failed = threading.Semaphore(0)

    def read():
        try:
            reader.read(0, 10)
        except DeadlineExceededError:
            failed.release()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert inner.arrived.acquire(timeout=20)
    reader.fail_reads(enabled=True)
    for _ in threads:
        assert failed.acquire(timeout=20)
    for thread in threads:
        thread.join()
    with pytest.raises(DeadlineExceededError, match="on request"):
        reader.read(0, 10)
    assert reader.status().failing_reads
    inner.gate.set()
    reader.fail_reads(enabled=False)
    assert reader.read(0, 10) == DISK[:10]


def test_what_is_resident_is_served_while_reads_are_failed(image):
    reader, _ = image
    reader.read(0, 10)
    reader.fail_reads(enabled=True)
    assert reader.read(0, 10) == DISK[:10]


def test_status_says_what_is_needed_and_what_is_here(image):
    reader, _ = image
    status = reader.status()
    assert (status.blocks_needed, status.blocks_cached, status.surveyed) == (5, 0, False)
    reader.read(0, 1)
    reader._survey._valid_until = 0.0
    status = reader.status()
    assert (status.blocks_cached, status.surveyed) == (2, True)  # positions 0 and 4 hold the same block
    assert not status.safe_to_unplug
    reader.read(0, DISK_SIZE)
    reader._survey._valid_until = 0.0
    status = reader.status()
    assert status.safe_to_unplug
    assert status.bytes_needed == 5 * BLOCK_SIZE
    json.dumps(dataclasses.asdict(status))


def test_threads_reading_at_random_all_see_the_disk(image):
    reader, inner = image
    wrong = []

    def read(seed):
        random_ = random.Random(seed)
        for _ in range(100):
            offset, size = random_.randrange(DISK_SIZE), random_.randrange(3 * BLOCK_SIZE)
            if reader.read(offset, size) != DISK[offset : offset + size]:
                wrong.append((offset, size))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(inner.fetched) == len(set(inner.fetched))


def test_a_closed_image_fails_what_it_does_not_hold(image):
    reader, _ = image
    reader.close()
    with pytest.raises(DeadlineExceededError, match="closed"):
        reader.read(0, 10)


def test_an_outage_shows_in_the_status_and_goes_with_the_next_read_that_is_answered(image):
    reader, inner = image
    inner.error = UnreachableError("the network is gone")
    with pytest.raises(UnreachableError):
        reader.read(0, 10)
    status = reader.status()
    assert (status.waiting_reads, status.network_problem) == (0, "the network is gone")
    inner.error = None
    reader.read(0, 10)
    assert reader.status().network_problem == ""


def test_reads_that_are_failed_on_request_are_no_outage(image):
    reader, _ = image
    reader.fail_reads(enabled=True)
    with pytest.raises(DeadlineExceededError):
        reader.read(0, 10)
    assert reader.status().network_problem == ""


def test_what_failed_for_want_of_the_network_is_tried_again_on_request(image):
    reader, inner = image
    assert reader.retry_failed(1)
    inner.error = UnreachableError("the network is gone")
    with pytest.raises(UnreachableError):
        reader.read(BLOCK_SIZE, 10)
    assert not reader.retry_failed(1)
    assert reader.status().failed_reads == 1
    inner.error = None
    assert reader.retry_failed(1)
    assert reader.read_if_resident(BLOCK_SIZE, 10) == block(2)[:10]
    assert reader.status().network_problem == ""


def test_what_no_network_can_bring_is_left_to_the_next_read_to_say(image):
    reader, inner = image
    inner.errors = [UnreachableError("the network is gone")]
    with pytest.raises(UnreachableError):
        reader.read(0, 10)
    inner.error = IntegrityError("all lie")
    assert reader.retry_failed(1)
