import errno
import os
import threading

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DeadlineExceededError, IntegrityError, NotServedError, OscircError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.arrivals import LONGEST_WAIT_S, STALLED_S, Arrivals
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Cancellation, Deadline

from .fakes import BLOCK_SIZE, FakeBlocks, FakeClock, block, blocks

RAW = block(1)
DIGEST = digest_of(RAW)
NODE = block(9, NODE_SIZE)


def soon():
    return Deadline.after(20)


@pytest.fixture
def inner():
    return FakeBlocks(blocks(1, 2, 3, 4, 5) | {digest_of(NODE): NODE})


@pytest.fixture
def source(inner, tmp_path):
    source = CachedSource(inner, tmp_path)
    yield source
    if inner.gate:
        inner.gate.set()
    source.close()


def test_a_block_is_fetched_once_and_then_served_from_memory(source, inner):
    assert source.resident(DIGEST, BLOCK_SIZE) is None
    assert source.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert source.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert source.resident(DIGEST, BLOCK_SIZE) == RAW
    assert inner.fetched == [DIGEST]
    status = source.status()
    assert (status.fetched_blocks, status.fetched_bytes, status.memory_hits) == (1, BLOCK_SIZE, 2)


def test_who_has_threads_enough_fetches_on_its_own(source, inner):
    assert source.fetch_here(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert source.fetch_here(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert (inner.fetched, inner.threads) == ([DIGEST], {threading.get_ident()})
    assert source.has(DIGEST)
    with pytest.raises(NotServedError):
        source.fetch_here(digest_of(block(77)), BLOCK_SIZE, soon())


def test_closing_calls_off_who_fetches_on_its_own_too(source, inner):
    source.fetch_here(DIGEST, BLOCK_SIZE, soon())
    assert not inner.deadlines[0].cancellation.reason
    source.close()
    assert inner.deadlines[0].cancellation.reason


def test_the_next_process_finds_it_on_disk(source, inner, tmp_path):
    source.fetch(DIGEST, BLOCK_SIZE, soon())
    other = CachedSource(FakeBlocks({}), tmp_path)
    assert other.has(DIGEST)
    assert other.resident(DIGEST, BLOCK_SIZE) == RAW
    assert other.status().file_hits == 1
    other.close()


def test_nodes_and_blocks_do_not_drive_each_other_out(inner, tmp_path):
    source = CachedSource(inner, tmp_path, block_memory_bytes=2 * BLOCK_SIZE, node_memory_bytes=NODE_SIZE)
    source.fetch(digest_of(NODE), NODE_SIZE, soon())
    for number in (1, 2, 3, 4):
        source.fetch(digest_of(block(number)), BLOCK_SIZE, soon())
    assert source.resident(digest_of(NODE), NODE_SIZE) == NODE
    assert source.resident(DIGEST, BLOCK_SIZE) == RAW
    status = source.status()
    assert (status.memory_hits, status.file_hits, status.fetched_nodes) == (1, 1, 1)
    source.close()


@pytest.mark.parametrize("damage", [b"", RAW[:-1], RAW + b"x", bytes([RAW[0] ^ 1]) + RAW[1:]])
def test_a_damaged_file_is_removed_counted_and_fetched_again(source, inner, tmp_path, damage):
    source.fetch(DIGEST, BLOCK_SIZE, soon())
    LocalStore(tmp_path / "blocks").path(DIGEST).write_bytes(damage)
    fresh = CachedSource(inner, tmp_path)
    assert fresh.resident(DIGEST, BLOCK_SIZE) is None
    assert fresh.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert fresh.status().damaged == 1
    assert inner.fetched == [DIGEST, DIGEST]
    assert LocalStore(tmp_path / "blocks").load(DIGEST, BLOCK_SIZE) == RAW
    fresh.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_is_no_error_of_reading(source, inner, monkeypatch, code):
    def refuse(*_args, **_keywords):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", refuse)
    assert source.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert source.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW  # from memory
    status = source.status()
    assert status.uncached_writes == 1
    assert status.last_write_problem
    assert not source.has(DIGEST)


def test_readers_at_once_cause_one_fetch(source, inner):
    inner.gate = threading.Event()
    got = []
    threads = [threading.Thread(target=lambda: got.append(source.fetch(DIGEST, BLOCK_SIZE, soon()))) for _ in range(16)]
    for thread in threads:
        thread.start()
    assert inner.arrived.acquire(timeout=20)
    inner.gate.set()
    for thread in threads:
        thread.join(20)
    assert got == [RAW] * 16
    assert inner.fetched == [DIGEST]


def test_a_reader_with_more_time_than_the_flight_it_joined_flies_again(source, inner):
    inner.gate = threading.Event()
    inner.errors = [DeadlineExceededError("the first reader's time is over")]
    got, raised = [], []

    def read(seconds):
        try:
            got.append(source.fetch(DIGEST, BLOCK_SIZE, Deadline.after(seconds)))
        except DeadlineExceededError as error:
            raised.append(error)

    impatient = threading.Thread(target=read, args=(30,))
    impatient.start()
    assert inner.arrived.acquire(timeout=20)
    patient = threading.Thread(target=read, args=(300,))
    patient.start()
    while not source.status().joined_flights:
        pass
    inner.gate.set()
    patient.join(20)
    impatient.join(20)
    assert got == [RAW]
    assert len(raised) == 1
    assert inner.fetched == [DIGEST, DIGEST]


def test_what_no_retry_heals_is_raised_to_all_at_once(source, inner):
    inner.error = IntegrityError("lies everywhere")
    with pytest.raises(IntegrityError):
        source.fetch(DIGEST, BLOCK_SIZE, soon())
    with pytest.raises(NotServedError):
        inner.error = None
        source.fetch(digest_of(block(77)), BLOCK_SIZE, soon())


def test_a_flight_outlives_the_reader_who_gave_up(source, inner):
    inner.gate = threading.Event()
    cancellation = Cancellation()
    failed = threading.Event()

    def read():
        try:
            source.fetch(DIGEST, BLOCK_SIZE, Deadline.after(300, cancellation))
        except DeadlineExceededError:
            failed.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert inner.arrived.acquire(timeout=20)
    cancellation.cancel("QEMU is stopping")
    assert failed.wait(20)
    reader.join()
    assert inner.deadlines[0].remaining_s() > 0  # the flight itself was not called off
    inner.gate.set()
    assert source.fetch(DIGEST, BLOCK_SIZE, soon()) == RAW
    assert inner.fetched == [DIGEST]


def test_each_of_many_comes_in_order_with_a_bounded_number_under_way(source, inner):
    digests = [digest_of(block(number)) for number in (1, 2, 3, 4, 5)]
    source.fetch(digests[2], BLOCK_SIZE, soon())
    pulled = []

    def wanted():
        for digest in digests:
            pulled.append(digest)
            yield digest

    each = source.fetch_each(wanted(), BLOCK_SIZE, soon, 2)
    assert next(each) == (digests[0], block(1))
    assert len(pulled) == 2
    assert [raw for _, raw in each] == [block(2), block(3), block(4), block(5)]
    assert sorted(inner.fetched) == sorted(digests)


def test_many_survive_a_cache_that_keeps_nothing(inner, tmp_path, monkeypatch):
    def refuse(*_args, **_keywords):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", refuse)
    source = CachedSource(inner, tmp_path, block_memory_bytes=0)
    digests = [digest_of(block(number)) for number in (1, 2, 3, 4)]
    assert dict(source.fetch_each(digests, BLOCK_SIZE, soon, 8)) == blocks(1, 2, 3, 4)
    assert sorted(inner.fetched) == sorted(digests)
    source.close()


def test_closing_calls_off_the_flights_and_closes_what_is_below(source, inner):
    inner.gate = threading.Event()
    inner.error = DeadlineExceededError("called off")
    failed = threading.Event()

    def read():
        try:
            source.fetch(DIGEST, BLOCK_SIZE, Deadline.after(300))
        except OscircError:
            failed.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert inner.arrived.acquire(timeout=20)
    source.close()
    assert inner.deadlines[0].remaining_s() == 0
    assert inner.closed
    inner.gate.set()
    reader.join(20)
    assert failed.is_set()


@pytest.mark.parametrize("given_s", [4.0, 10.0])
def test_a_bundle_that_promises_and_never_brings_costs_a_read_of_many_blocks_half_its_time_at_most(
    source, inner, given_s
):
    """It moves on and on, as fast as its liar says, and each block is always a moment away."""
    wanted = list(blocks(1, 2, 3, 4, 5))
    offset = 0

    class Clock(FakeClock):
        def wait(self, event, timeout_s):
            nonlocal offset
            if timeout_s > STALLED_S:  # a flight: it is waited for in earnest
                return event.wait(20)
            self.now += timeout_s
            offset += 1
            arrivals.moved(offset, rate=1e9)
            return event.is_set()

    clock = Clock()
    arrivals = Arrivals(clock)
    arrivals.expect(dict.fromkeys(wanted, 1 << 20), 0)
    source.wait_for_arrivals(arrivals)
    deadline, began = clock.deadline(given_s), clock.now
    got = dict(source.fetch_each(wanted, BLOCK_SIZE, lambda: deadline, 8))
    assert got == blocks(1, 2, 3, 4, 5)
    assert 0 < clock.now - began <= min(LONGEST_WAIT_S, given_s / 2) + STALLED_S / 4
