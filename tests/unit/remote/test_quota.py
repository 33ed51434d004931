import threading

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Deadline
from oscirc_remote.eviction import Evicted
from oscirc_remote.quota import FULL_FOR_S, LEAST_STEP_BYTES, Quota

from .fakes import BLOCK_SIZE, FakeBlocks, FakeClock, block, blocks

LIMIT = 1 << 40


class ScriptedEvictor:
    """Says what it is told to say; counts."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.runs = 0

    def run(self, _limit):
        self.runs += 1
        answer = self.answers.pop(0) if self.answers else Evicted()
        if isinstance(answer, Exception):
            raise answer
        return answer


def quota(evictor, limit=LIMIT, **options):
    return Quota(evictor, limit, run=lambda work: work(), **options)


def test_it_looks_at_the_first_write_and_near_the_limit_after_each_step():
    limit = 1 << 30
    evictor = ScriptedEvictor(*[Evicted(bytes_before=limit * 9 // 10)] * 60)
    watched = quota(evictor, limit=limit)
    watched.kept(1)
    assert evictor.runs == 1
    for _ in range(250):
        watched.kept(limit // 250)
    assert 35 <= evictor.runs - 1 <= 50


def test_far_from_the_limit_it_looks_seldom_and_still_in_time():
    """Four who write beside each other, each of whom found the same room, fill it and no more."""
    limit = 1 << 30
    evictor = ScriptedEvictor(*[Evicted(bytes_before=limit // 2)] * 60)
    watched = quota(evictor, limit=limit)
    watched.kept(1)
    for _ in range(1000):
        watched.kept(limit // 2 // 1000)
    assert 3 <= evictor.runs - 1 <= 4


def test_a_small_limit_is_not_looked_after_all_the_time():
    evictor = ScriptedEvictor()
    watched = quota(evictor, limit=100 << 20)
    for _ in range(100):
        watched.kept(1 << 20)
    assert evictor.runs <= 2 + (100 << 20) // LEAST_STEP_BYTES


def test_only_one_look_at_a_time():
    waiting = []
    evictor = ScriptedEvictor()
    watched = Quota(evictor, 1, run=waiting.append)
    watched.kept(10)
    watched.kept(10)
    assert len(waiting) == 1
    waiting.pop()()
    watched.kept(10)
    assert len(waiting) == 1


def test_whoever_is_not_waited_for_writes_nothing_while_an_evictor_looks():
    looks, kept = [], threading.Event()
    watched = Quota(ScriptedEvictor(), 1, waits=True, run=looks.append)

    def keep():
        watched.kept(10)
        kept.set()

    thread = threading.Thread(target=keep)
    thread.start()
    while not looks:
        thread.join(0.01)
    assert not kept.wait(0.05)
    looks.pop()()
    thread.join(20)
    assert kept.is_set()


def test_full_of_what_must_stay_keeps_nothing_more_until_there_is_room():
    clock = FakeClock()
    full = Evicted(bytes_before=LIMIT + 5, needed_bytes=LIMIT + 5)
    evictor = ScriptedEvictor(full, full, Evicted(bytes_before=10))
    watched = quota(evictor, clock=clock)
    assert not watched.is_full()
    watched.kept(1)
    assert watched.is_full()
    assert evictor.runs == 1
    clock.now += FULL_FOR_S
    assert watched.is_full()
    clock.now += FULL_FOR_S
    assert not watched.is_full()


def test_an_eviction_that_fails_is_no_error_of_whoever_writes():
    evictor = ScriptedEvictor(LocalError("no"), RuntimeError("a mistake"), Evicted(busy=True))
    watched = quota(evictor, limit=1)
    for _ in range(3):
        watched.kept(10)
    assert evictor.runs == 3
    assert not watched.is_full()


def test_a_cache_with_a_quota_tells_it_and_obeys_it(tmp_path):
    evictor = ScriptedEvictor(Evicted(bytes_before=BLOCK_SIZE), Evicted(bytes_before=2 * BLOCK_SIZE))
    source = CachedSource(FakeBlocks(blocks(1, 2, 3, 4)), tmp_path, quota=quota(evictor, limit=2 * BLOCK_SIZE))
    try:
        for number in (1, 2, 3, 4):
            digest = digest_of(block(number))
            assert source.fetch(digest, BLOCK_SIZE, Deadline.after(10)) == block(number)
        status = source.status()
        assert [source.has(digest_of(block(number))) for number in (1, 2, 3, 4)] == [True, True, False, False]
        assert status.uncached_writes == 2
        assert "limit" in status.last_write_problem
    finally:
        source.close()
