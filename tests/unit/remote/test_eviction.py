"""What must stay stays, whatever else happens; the rest goes in the order of its last use."""

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.local_store import USE_NOTED_S, LocalStore
from oscirc_blockstore.table import FANOUT, NODE_SIZE
from oscirc_remote import eviction, uses
from oscirc_remote.cache_layout import STORE_DIRECTORY
from oscirc_remote.eviction import LOCK_FILE, Evictor
from oscirc_remote.needed import needed_digests

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
        then = time.time() - 1 - age_h * HOUR_S
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


def test_a_table_whose_nodes_repeat_is_walked_in_no_time(cache):
    """Eight leaves' worth of one and the same leaf, below a root that names it a thousand times."""
    content = {row * FANOUT + slot: block(1) for row in range(8) for slot in range(FANOUT)}
    made, stored = make_image(content, 8 * FANOUT * BLOCK_SIZE)
    for raw in stored.values():
        cache.put(raw, 1)
    assert len(list(needed_digests(made, cache.store))) == 2 + FANOUT


def test_nodes_that_are_looked_at_do_not_count_as_used(cache):
    cache.needed = [cache.image([1], age_h=50)]
    cache.evictor.run(0)
    assert all(time.time() - cache.store.path(digest).stat().st_mtime > 49 * HOUR_S for digest in cache.here())


def test_an_image_in_use_stays_and_counts_as_used_until_it_ended(cache):
    """Most reads of a guest are served by the kernel's page cache: its blocks look old although it was just used."""
    old, newer = cache.image([1, 2], age_h=90), cache.put(block(10), 30)
    with uses.using(cache.directory, old):
        cache.evictor.run(0)
        assert cache.here() == set(needed_digests(old, cache.store))
        cache.put(block(10), 30)
    size = sum(cache.store.path(digest).stat().st_size for digest in cache.here())
    cache.evictor.run(size - 1, low_water=1.0)
    assert newer not in cache.here()
    assert digest_of(block(1)) in cache.here()
    assert uses.ended(cache.directory) == []  # the blocks say it now


def test_an_image_that_is_pinned_in_the_middle_of_an_eviction_keeps_what_is_left_of_it(cache, monkeypatch):
    monkeypatch.setattr(eviction, "BATCH_FILES", 1)
    made = cache.image(range(1, 30), age_h=100)
    asked, left = [], []

    def needed():
        os.utime(cache.store.path(made.root.digest))  # somebody reads it all the time
        asked.append(len(cache.here()))
        if len(asked) == 5:
            left.append(cache.here())
        return [made] if left else []

    evicted = Evictor(cache.directory, needed).run(0)
    assert asked[:5] == [30, 30, 29, 28, 27]
    assert evicted.files_freed == 3
    assert cache.here() == left[0]


def test_a_table_that_arrives_in_the_middle_of_an_eviction_protects_the_blocks_that_are_here(cache, monkeypatch):
    """The next version of an image is mounted: it shares blocks with the last, and its nodes are being fetched."""
    monkeypatch.setattr(eviction, "BATCH_FILES", 1)
    made, stored = make_image({at: block(at + 1) for at in range(30)}, 30 * BLOCK_SIZE)
    for raw in stored.values():
        if len(raw) != NODE_SIZE:
            cache.put(raw, 100)
    asked = []

    def needed():
        asked.append(1)
        if len(asked) == 5:
            cache.store.save(made.root.digest, stored[made.root.digest])
        return [made]

    evicted = Evictor(cache.directory, needed).run(0)
    assert evicted.files_freed == 3
    assert len(cache.here()) == 1 + 27


def test_what_is_read_between_the_passes_stays(cache, monkeypatch):
    digest = cache.put(block(1), 100)
    asked = []

    def needed():
        asked.append(1)
        if len(asked) == 2:
            assert cache.store.load(digest, BLOCK_SIZE) is not None
        return []

    Evictor(cache.directory, needed).run(0)
    assert cache.here() == {digest}


def test_files_that_a_wrong_clock_dated_in_the_future_can_go(cache):
    digest = cache.put(block(1), age_h=-1000)
    cache.evictor.run(0)
    assert digest not in cache.here()


def test_nothing_outside_of_the_store_is_touched(cache, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    name = "ab" * 32
    (outside / name).write_bytes(b"somebody's")
    os.utime(outside / name, (1, 1))
    (cache.store.root / "ab").symlink_to(outside)
    inside = cache.store.root / "cd"
    inside.mkdir()
    (inside / ("cd" * 32)).symlink_to(outside / name)
    (inside / "notes.txt").write_text("not a block")
    cache.evictor.run(0)
    assert (outside / name).exists()
    assert len(list(inside.iterdir())) == 2


class Hoarder(RuleBasedStateMachine):
    """A user, mounts and evictions in any order: what is pinned or in use never loses a block."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.cache = Cache(Path(self.directory.name))
        self.evictor = Evictor(self.cache.directory, lambda: list(self.pins))
        self.pins, self.uses = set(), []
        self.must_stay = set()

    def protected(self):
        return [*self.pins, *(made for made, _ in self.uses)]

    def look(self, made):
        self.must_stay |= set(needed_digests(made, self.cache.store)) & self.cache.here()

    images = Bundle("images")

    @rule(target=images, numbers=st.lists(st.integers(1, 12), min_size=1, max_size=6), age_h=st.integers(0, 400))
    def publish_and_fetch(self, numbers, age_h):
        made = self.cache.image(numbers, age_h)
        for each in self.protected():
            self.look(each)
        return made

    @rule(made=images)
    def pin(self, made):
        self.pins.add(made)
        self.look(made)

    @rule(made=images)
    def mount(self, made):
        held = contextlib.ExitStack()
        held.enter_context(uses.using(self.cache.directory, made))
        self.uses.append((made, held))
        self.look(made)

    @rule(made=images)
    def unpin(self, made):
        self.pins.discard(made)
        self.forget()

    @precondition(lambda self: self.uses)
    @rule(which=st.integers(0, 10))
    def unmount(self, which):
        _, held = self.uses.pop(which % len(self.uses))
        held.close()
        self.forget()

    def forget(self):
        still = {digest for made in self.protected() for digest in needed_digests(made, self.cache.store)}
        self.must_stay &= still

    @rule(number=st.integers(20, 40), age_h=st.integers(0, 400))
    def put(self, number, age_h):
        self.cache.put(block(number), age_h)

    @rule(blocks=st.integers(0, 20), low_water=st.sampled_from([0.5, 0.9, 1.0]))
    def evict(self, blocks, low_water):
        limit = blocks * BLOCK_SIZE
        began = time.time()
        evicted = self.evictor.run(limit, low_water=low_water)
        size = sum(self.cache.store.path(digest).stat().st_size for digest in self.cache.here())
        assert size == evicted.bytes_left
        needed = {digest for made in self.protected() for digest in needed_digests(made, self.cache.store)}
        here = self.cache.here()
        recent = {digest for digest in here if self.cache.store.path(digest).stat().st_mtime > began - 1}
        assert size <= limit or here <= needed | recent

    @rule()
    def look_only(self):
        before = self.cache.here()
        self.evictor.run(0, dry_run=True)
        assert self.cache.here() == before

    @invariant()
    def nothing_that_must_stay_is_gone(self):
        assert self.must_stay <= self.cache.here()

    def teardown(self):
        for _, held in self.uses:
            held.close()
        self.directory.cleanup()


Hoarder.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestHoarder = Hoarder.TestCase


def test_threads_that_use_and_pin_while_others_evict_never_miss_a_block_that_was_here(cache, monkeypatch):
    monkeypatch.setattr(eviction, "BATCH_FILES", 3)
    crowd = _Crowd(cache, [cache.image(range(at * 8, at * 8 + 12), age_h=50) for at in range(4)])
    evictors = [threading.Thread(target=crowd.evict) for _ in range(2)]
    users = [threading.Thread(target=crowd.use, args=(made, at % 2 == 0)) for at, made in enumerate(crowd.images)]
    for thread in (*evictors, *users):
        thread.start()
    for thread in users:
        thread.join(60)
    crowd.ending.set()
    for thread in evictors:
        thread.join(60)
    assert crowd.missed == []


class _Crowd:
    """Threads that evict, and threads that use or pin an image over and over, while all of it comes again."""

    def __init__(self, cache, images):
        self.cache, self.images = cache, images
        self.originals = {digest: cache.store.path(digest).read_bytes() for digest in cache.here()}
        self.pinned, self.ending, self.missed = set(), threading.Event(), []

    def evict(self):
        while not self.ending.is_set():
            Evictor(self.cache.directory, lambda: list(self.pinned)).run(0)

    def use(self, made, by_pin):
        for _ in range(40):
            for digest, raw in self.originals.items():
                if not self.cache.store.has(digest):
                    with contextlib.suppress(FileNotFoundError):  # evicted before it was dated
                        self.cache.put(raw, 50)
            with contextlib.ExitStack() as held:
                if by_pin:
                    with uses.registering(self.cache.directory):
                        self.pinned.add(made)
                else:
                    held.enter_context(uses.using(self.cache.directory, made))
                here = set(needed_digests(made, self.cache.store)) & self.cache.here()
                for _ in range(3):
                    self.missed.extend(digest for digest in here if not self.cache.store.has(digest))
                self.pinned.discard(made)
