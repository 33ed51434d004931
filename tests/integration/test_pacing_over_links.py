"""How many blocks the fetch engine has under way over emulated links: more the longer and faster the link, and bounded.

A request is under way from when it leaves the client to the last byte of its answer: counted at the client's end, as
much of an answer is in the link when the server has sent all of it. The order of what was learnt is measured time's, so
this is for a machine that does nothing else; the window alone is tested on a scripted link (tests/unit/remote).
"""

import contextlib
import random
import threading
from collections import deque

import pytest
from support.links import far_mirror

from oscirc_blockstore import frame
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.pacing import CEILING, FLOOR

RAW = 64 << 10
BLOCKS = 120
LEARNING = 60  # blocks until the window is what the link wants
QUEUED = 40


class Counting:
    """The frame source that fetches over HTTP, and the most requests that it had under way since `forget`."""

    def __init__(self, url):
        self._inner = HttpFrameSource(url)
        self._lock = threading.Lock()
        self._now = self.most = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def fetch_frame(self, *args, **options):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self._inner.fetch_frame(*args, **options)
        finally:
            with self._lock:
                self._now -= 1

    def forget(self):
        with self._lock:
            self.most = self._now


@pytest.fixture(scope="module")
def blocks():
    chance = random.Random(7)
    return {digest_of(raw): raw for raw in (chance.randbytes(RAW) for _ in range(BLOCKS))}


def most_under_way(blocks, cache, megabits, round_trip_s):
    """Fetches all blocks ahead, always with more waiting than may fly; the most that flew at once after a while."""
    files = {block_path(digest): frame.encode(raw) for digest, raw in blocks.items()}
    with far_mirror(files, megabits=megabits, round_trip_s=round_trip_s) as mirror:
        counting = Counting(mirror.url)
        mirrors = MirroredSource([counting])
        with contextlib.closing(CachedSource(mirrors, cache, window=mirrors.window)) as source:
            waiting = deque()
            for number, digest in enumerate(blocks):
                waiting.append((digest, source.prefetch(digest, RAW, Deadline.after(60))))
                if number == LEARNING + QUEUED:
                    counting.forget()
                if len(waiting) > QUEUED:
                    first, flight = waiting.popleft()
                    assert flight.wait(Deadline.after(60)) == blocks[first]
            for first, flight in waiting:
                assert flight.wait(Deadline.after(60)) == blocks[first]
        assert mirror.server.count("blocks/*") == BLOCKS
    return counting.most


@pytest.mark.long
def test_more_is_under_way_the_longer_and_faster_the_link(blocks, tmp_path):
    links = [(megabits, round_trip_s) for megabits in (20, 1000) for round_trip_s in (0.001, 0.1)]
    most = {}
    for link in links:
        cache = tmp_path / f"{link[0]}-{link[1]}"
        cache.mkdir()
        most[link] = most_under_way(blocks, cache, *link)
    assert all(FLOOR <= count <= CEILING for count in most.values()), most
    assert most[20, 0.001] < most[20, 0.1] < most[1000, 0.1], most
    assert most[1000, 0.001] < most[1000, 0.1], most
