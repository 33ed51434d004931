"""What must stay stays, whatever else happens; the rest goes in the order of its last use."""

import fcntl
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.local_store import USE_NOTED_S, LocalStore
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.cache_layout import STORE_DIRECTORY
from oscirc_remote.eviction import LOCK_FILE, Evictor, needed_digests

from .fakes import BLOCK_SIZE, block, make_image

HOUR_S = 3600


class Cache:
    """A cache directory with images in it; blocks get the age that a test says."""

    def __init__(self, directory):
        self.directory = directory
        self.store = LocalStore(directory / STORE_DIRECTORY)
        self.needed = []
        self.evictor = Evictor(directory, lambda: self.needed)

    def put(self, raw, age_h):
        digest = digest_of(raw)
        self.store.save(digest, raw)
        then = time.time() - age_h * HOUR_S
        os.utime(self.store.path(digest), (then, then))
        return digest

    def image(self, numbers, age_h, *, with_nodes=True):
        made, stored = make_image({at: block(number) for at, number in enumerate(numbers)}, len(numbers) * BLOCK_SIZE)
        for raw in stored.values():
            if with_nodes or len(raw) != NODE_SIZE:
                self.put(raw, age_h)
        return made

    def here(self):
        return set(self.store.digests())


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


def test_below_the_limit_nothing_goes(cache):
    cache.put(block(1), 100)
    evicted = cache.evictor.run(2 * BLOCK_SIZE)
    assert (evicted.bytes_before, evicted.bytes_freed, evicted.files_freed) == (BLOCK_SIZE, 0, 0)


def test_the_least_recently_used_goes_first_and_down_to_nine_tenths(cache):
    digests = [cache.put(block(number), age_h=100 - number) for number in range(20)]
    evicted = cache.evictor.run(10 * BLOCK_SIZE)
    assert cache.here() == set(digests[11:])
    assert evicted.bytes_left == 9 * BLOCK_SIZE
    assert evicted.files_freed == 11


def test_a_load_counts_as_use(cache):
    old, older = cache.put(block(1), 20), cache.put(block(2), 30)
    assert USE_NOTED_S < 20 * HOUR_S
    assert cache.store.load(older, BLOCK_SIZE) is not None
    cache.evictor.run(int(1.5 * BLOCK_SIZE), low_water=1.0)
    assert cache.here() == {older}
    assert old not in cache.here()


def test_what_is_needed_stays_whatever_the_limit(cache):
    cache.needed = [cache.image([1, 2, 3], age_h=1000)]
    wanted = cache.here()
    others = {cache.put(block(number), 1) for number in range(10, 15)}
    evicted = cache.evictor.run(0)
    assert cache.here() == wanted
    assert evicted.files_freed == len(others)
    assert evicted.needed_files == len(wanted)
    assert evicted.bytes_left == evicted.needed_bytes > 0


def test_a_block_that_several_images_share_stays_for_the_one_that_is_needed(cache):
    cache.image([1, 2, 3], 500)
    cache.needed = [cache.image([3, 4], 400)]
    cache.evictor.run(0)
    assert {digest_of(block(3)), digest_of(block(4))} < cache.here()
    assert digest_of(block(1)) not in cache.here()


def test_of_an_image_without_its_nodes_nothing_is_kept_back(cache):
    """Nobody can read those blocks without fetching the nodes."""
    cache.needed = [cache.image([1, 2], 10, with_nodes=False)]
    cache.evictor.run(0)
    assert cache.here() == set()


def test_what_comes_while_it_looks_is_not_touched(cache):
    new = []
    cache.put(block(1), 10)

    def needed():
        new.append(digest_of(block(2)))
        cache.store.save(new[0], block(2))
        future = time.time() + 1
        os.utime(cache.store.path(new[0]), (future, future))
        return []

    Evictor(cache.directory, needed).run(0)
    assert cache.here() == set(new)


def test_a_dry_run_says_the_same_and_removes_nothing(cache):
    for number in range(20):
        cache.put(block(number), number)
    before = cache.here()
    said = cache.evictor.run(5 * BLOCK_SIZE, dry_run=True)
    assert cache.here() == before
    done = cache.evictor.run(5 * BLOCK_SIZE)
    assert (said.files_freed, said.bytes_freed) == (done.files_freed, done.bytes_freed)


def test_while_another_makes_room_nothing_is_removed(cache):
    cache.put(block(1), 10)
    with (cache.directory / LOCK_FILE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cache.evictor.run(0).busy
        assert len(cache.here()) == 1
    assert not cache.evictor.run(0).busy
    assert cache.here() == set()


def test_when_it_is_not_known_what_must_stay_all_stays(cache):
    cache.put(block(1), 10)

    def unknown():
        raise LocalError("a pin cannot be read")

    with pytest.raises(LocalError):
        Evictor(cache.directory, unknown).run(0)
    assert len(cache.here()) == 1


def test_what_an_image_needs_are_its_nodes_and_blocks(cache):
    made = cache.image([1, 2, 2], 1)
    assert set(needed_digests(made, cache.store)) == cache.here()


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 400)), max_size=5),
    loose=st.lists(st.tuples(st.integers(20, 40), st.integers(0, 400)), max_size=10),
    chosen=st.sets(st.integers(0, 4)),
    limit=st.integers(0, 20),
)
def test_nothing_that_is_needed_ever_goes_and_the_limit_is_kept_where_it_can_be(
    tmp_path_factory, images, loose, chosen, limit
):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    made = [cache.image(numbers, age) for numbers, age in images]
    for number, age in loose:
        cache.put(block(number), age)
    cache.needed = [made[at] for at in chosen if at < len(made)]
    must_stay = {digest for each in cache.needed for digest in needed_digests(each, cache.store)}
    before = cache.here()
    evicted = cache.evictor.run(limit * BLOCK_SIZE)
    after = cache.here()
    assert must_stay <= after <= before
    size = sum(cache.store.path(digest).stat().st_size for digest in after)
    assert size == evicted.bytes_left
    assert size <= limit * BLOCK_SIZE or after == must_stay
