import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import UnreachableError
from oscirc_fusedriver.pagecache import PAGE, PagePusher, rest_of_blocks
from oscirc_fusedriver.status import DriverCounters

from .fakes import MemoryReader

BLOCK = 65536


@given(
    disk_size=st.integers(1, 40 * BLOCK),
    start=st.floats(0, 1, exclude_max=True),
    length=st.integers(1, 3 * BLOCK),
    block_size=st.sampled_from([BLOCK, 4 * BLOCK]),
)
def test_the_rest_is_whole_pages_of_the_same_blocks_that_were_not_asked_for(disk_size, start, length, block_size):
    offset = int(start * disk_size)
    length = min(length, disk_size - offset)
    runs = rest_of_blocks(offset, length, block_size=block_size, disk_size=disk_size)
    blocks = range(offset // block_size, (offset + length - 1) // block_size + 1)
    pages = {page for run in runs for page in range(run.start // PAGE, -(-run.stop // PAGE))}
    asked = set(range(offset // PAGE, -(-(offset + length) // PAGE)))
    everything = {
        page
        for block in blocks
        for page in range(block * block_size // PAGE, -(-min((block + 1) * block_size, disk_size) // PAGE))
    }
    assert pages == everything - asked
    assert len(runs) <= 2
    for run in runs:
        assert run.size > 0
        assert run.start % PAGE == 0
        assert run.stop <= disk_size
        assert run.stop % PAGE == 0 or run.stop == disk_size


def test_examples_of_rests():
    def rest(offset, length, disk_size=10 * BLOCK):
        return rest_of_blocks(offset, length, block_size=BLOCK, disk_size=disk_size)

    assert rest(0, BLOCK) == []
    assert rest(BLOCK, 4096) == [ByteRange(BLOCK + 4096, 2 * BLOCK)]
    assert rest(8192, 4096) == [ByteRange(0, 8192), ByteRange(12288, BLOCK)]
    assert rest(BLOCK - 4096, 8192) == [ByteRange(0, BLOCK - 4096), ByteRange(BLOCK + 4096, 2 * BLOCK)]
    assert rest(0, 4096, disk_size=6000) == [ByteRange(4096, 6000)]


class Kernel:
    """Records what is stored; may be made to wait or to refuse."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, bytes]] = []
        self.threads: set[str] = set()
        self.refusal: Exception | None = None
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.leave.set()

    def store(self, offset, data):
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.leave.wait(30)
        if self.refusal:
            raise self.refusal
        self.stored.append((offset, bytes(data)))


@pytest.fixture
def world():
    content = bytes(range(256)) * 4096  # 1 MiB
    reader = MemoryReader(content)
    kernel, counters = Kernel(), DriverCounters()
    awaited: list[tuple[int, int]] = []
    pusher = PagePusher(
        reader,
        kernel.store,
        lambda start, stop: any(low < stop and start < high for low, high in awaited),
        block_size=BLOCK,
        counters=counters,
    )
    yield reader, kernel, counters, awaited, pusher
    kernel.leave.set()
    assert pusher.stop(10)


def finish(pusher):
    """Everything that was offered has been dealt with: the thread takes one at a time, in order."""
    pusher._queue.put(None)
    pusher._thread.join(30)
    assert not pusher._thread.is_alive()


def test_the_rest_is_stored_by_a_thread_of_its_own(world):
    reader, kernel, counters, _, pusher = world
    pusher.offer(BLOCK + 8192, 4096)
    finish(pusher)
    assert kernel.stored == [
        (BLOCK, reader.content[BLOCK : BLOCK + 8192]),
        (BLOCK + 12288, reader.content[BLOCK + 12288 : 2 * BLOCK]),
    ]
    assert kernel.threads == {"page-pusher"}
    assert (counters.stores, counters.stored_bytes) == (2, BLOCK - 4096)


def test_pages_of_a_waiting_read_are_left_alone(world):
    _, kernel, counters, awaited, pusher = world
    awaited.append((2 * BLOCK - 4096, 2 * BLOCK + 4096))
    pusher.offer(BLOCK + 8192, 4096)
    finish(pusher)
    assert [offset for offset, _ in kernel.stored] == [BLOCK]
    assert counters.stores_skipped == 1


def test_what_is_not_resident_any_more_is_not_fetched(world):
    reader, kernel, _, _, pusher = world
    reader.cold.add(BLOCK)
    pusher.offer(BLOCK + 8192, 4096)
    finish(pusher)
    assert [offset for offset, _ in kernel.stored] == [BLOCK + 12288]
    assert reader.waited == []


def test_offering_never_waits_and_a_full_queue_drops(world):
    _, kernel, counters, _, pusher = world
    kernel.leave.clear()
    pusher.offer(0, 4096)
    assert kernel.entered.wait(30)
    for _ in range(1100):
        pusher.offer(BLOCK, 4096)
    assert counters.stores_dropped == 1100 - 1024


@pytest.mark.parametrize(
    "refusal", [FileNotFoundError(2, "unknown inode"), OSError(107, "gone"), UnreachableError("x"), RuntimeError("bug")]
)
def test_a_refused_store_changes_nothing(world, refusal, caplog):
    _, kernel, counters, _, pusher = world
    kernel.refusal = refusal
    pusher.offer(0, 4096)
    pusher.offer(BLOCK, 4096)
    finish(pusher)
    assert counters.stores == 0
    assert bool(caplog.records) == isinstance(refusal, RuntimeError)


def test_stopping_says_when_the_kernel_holds_the_thread(world):
    _, kernel, _, _, pusher = world
    kernel.leave.clear()
    pusher.offer(0, 4096)
    assert kernel.entered.wait(30)
    assert pusher.stop(0.05) is False
    kernel.leave.set()
    assert pusher.stop(30) is True
