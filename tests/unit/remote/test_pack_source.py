"""Delta packs on a workstation: taken where they are cheaper and their old blocks are here, believed never."""

import contextlib
import random
import struct
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import delta, delta_making, delta_record, frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    IntegrityError,
    NotServedError,
    UnreachableError,
)
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.bundle_mirrors import Part
from oscirc_remote.pack_source import MOST_FAILED, MOST_REFUSED, REST_S, PackSource
from tests.unit.blockstore.versions import BLOCK, Store

from .fakes import FakeClock

CHANCE = random.Random(17)
OLD = [CHANCE.randbytes(BLOCK) for _ in range(4)]
NEW = [
    OLD[1][:20000] + b"an edit" + OLD[1][20007:],
    OLD[2],
    (b"moved" + OLD[3])[:BLOCK],
    OLD[0][: BLOCK // 2] + OLD[3][BLOCK // 2 :],
    CHANCE.randbytes(BLOCK),
]
STORE = Store()
FROM, TO = STORE.version(OLD), STORE.version(NEW)
with delta_making.made_pack(FROM, TO, STORE.load, lambda _, raw: len(frame.encode(raw))) as _pack:
    ACCELERATOR, FILE = _pack.accelerator, _pack.file.read()
INDEX = delta.parse_index(FILE[: ACCELERATOR.index_length])
OLD_DIGESTS = [digest_of(raw) for raw in OLD]
EDITED = digest_of(NEW[0])
COPIED = digest_of(NEW[3])
STRANGE = digest_of(NEW[4])


class Mirrors:
    """Whole blocks, from a mirror that counts what it is asked for."""

    def __init__(self):
        self.asked, self.closed = [], False

    def fetch(self, digest, raw_size, deadline):
        self.asked.append(digest)
        return STORE.load(digest, raw_size)

    def window(self):
        return 5

    def mirror_status(self):
        return ()

    def close(self):
        self.closed = True


class Ranges:
    """The pack's file from mirrors: `change` may spoil the first one's or raise, `others` have theirs."""

    def __init__(self):
        self.change = lambda raw: raw
        self.others = {}
        self.asked, self.told_off, self.closed = [], [], False

    def get_part(self, accelerator, start, stop, deadline, *, skip=frozenset()):
        assert accelerator == ACCELERATOR
        for name, change in {"first": self.change, **self.others}.items():
            if name not in skip:
                self.asked.append((start, stop))
                return Part(change(FILE[start:stop]), name)
        raise NotServedError("nobody else")

    def report(self, name, problem):
        assert isinstance(problem, IntegrityError)
        self.told_off.append(name)

    @property
    def requests(self):
        return len(self.asked)

    @property
    def received_bytes(self):
        return sum(stop - start for start, stop in self.asked)

    def close(self):
        self.closed = True


class World:
    def __init__(self, directory):
        self.store = LocalStore(directory)
        self.mirrors, self.ranges = Mirrors(), Ranges()
        self.source = PackSource(self.mirrors, self.ranges, self.store)
        self.source.use(ACCELERATOR, INDEX)

    def keep(self, *digests):
        for digest in digests:
            self.store.save(digest, STORE.held[digest])

    def fetch(self, digest, raw_size=BLOCK):
        raw = self.source.fetch(digest, raw_size, FakeClock().deadline())
        assert digest_of(raw) == digest
        return raw

    def counts(self, *names):
        status = self.source.status()
        return tuple(getattr(status, name) for name in names)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_block_is_made_of_what_is_here_and_a_record(world):
    world.keep(*OLD_DIGESTS)
    world.fetch(EDITED)
    assert world.mirrors.asked == []
    assert world.counts("rebuilt_blocks", "refused_records", "failed_records", "packs") == (1, 0, 0, 1)
    record = INDEX.records[EDITED]
    assert world.ranges.asked == [(record.offset, record.offset + record.length)]
    assert world.counts("record_bytes", "saved_bytes") == (record.length, record.whole_length - record.length)


def test_a_block_of_copies_alone_needs_no_request(world):
    world.keep(*OLD_DIGESTS)
    world.fetch(COPIED)
    assert (world.mirrors.asked, world.ranges.asked) == ([], [])


def test_a_block_whose_old_blocks_are_not_here_is_fetched_whole(world):
    world.fetch(EDITED)
    assert (world.mirrors.asked, world.ranges.asked) == ([EDITED], [])
    assert world.counts("rebuilt_blocks", "failed_records") == (0, 0)


def test_what_a_pack_does_not_make_is_fetched_whole(world):
    world.keep(*OLD_DIGESTS)
    world.fetch(STRANGE)
    world.fetch(OLD_DIGESTS[0])
    assert world.mirrors.asked == [STRANGE, OLD_DIGESTS[0]]


def test_nodes_are_made_without_a_request_where_the_old_one_is_here(world):
    root = TO.manifest.root.digest
    world.fetch(root, NODE_SIZE)
    assert world.mirrors.asked == [root]
    world.keep(FROM.manifest.root.digest)
    world.fetch(root, NODE_SIZE)
    assert world.mirrors.asked == [root]
    assert world.counts("rebuilt_nodes") == (1,)


def test_costs_are_known_before_anything_is_fetched(world):
    record = INDEX.records[EDITED]
    root = TO.manifest.root.digest
    assert world.source.cost(EDITED, BLOCK) == record.whole_length
    assert world.source.cost(root, NODE_SIZE) is None
    world.keep(*OLD_DIGESTS, FROM.manifest.root.digest)
    assert world.source.cost(EDITED, BLOCK) == record.length
    assert world.source.cost(STRANGE, BLOCK) == INDEX.records[STRANGE].whole_length
    assert world.source.cost(root, NODE_SIZE) == 0
    assert world.source.cost(OLD_DIGESTS[0], BLOCK) is None
    assert world.ranges.asked == []


def test_a_record_that_cannot_be_had_is_no_error(world):
    world.keep(*OLD_DIGESTS)

    def gone(_raw):
        raise NotServedError("gone")

    world.ranges.change = gone
    for _ in range(MOST_REFUSED + 1):
        world.fetch(EDITED)
    assert world.counts("failed_records", "refused_records") == (MOST_REFUSED + 1, 0)


def test_an_old_block_that_is_damaged_is_no_error(world):
    world.keep(*OLD_DIGESTS)
    world.store.path(OLD_DIGESTS[1]).write_bytes(bytes(BLOCK))
    world.fetch(EDITED)
    assert world.mirrors.asked == [EDITED]
    assert world.counts("failed_records") == (1,)


def test_a_pack_that_proves_wrong_is_used_no_more(world):
    world.keep(*OLD_DIGESTS)
    world.ranges.change = lambda raw: bytes(len(raw))
    for _ in range(MOST_REFUSED + 5):
        world.fetch(EDITED)
    assert world.counts("refused_records") == (MOST_REFUSED,)
    assert len(world.ranges.asked) == MOST_REFUSED
    assert world.source.cost(EDITED, BLOCK) == INDEX.records[EDITED].whole_length


def test_a_mirror_whose_record_is_wrong_is_told_off_where_another_has_the_right_one(world):
    world.keep(*OLD_DIGESTS)
    world.ranges.change = lambda raw: bytes(len(raw))
    world.ranges.others = {"second": lambda raw: raw}
    for _ in range(MOST_REFUSED + 1):
        world.fetch(EDITED)
    assert world.counts("rebuilt_blocks", "refused_records") == (MOST_REFUSED + 1, MOST_REFUSED + 1)
    assert set(world.ranges.told_off) == {"first"}
    assert world.mirrors.asked == []


@pytest.mark.parametrize("other", [lambda raw: bytes(len(raw)), lambda raw: b"x" * len(raw)], ids=["the same", "other"])
def test_where_nobody_has_a_right_record_nobody_is_told_off(world, other):
    world.keep(*OLD_DIGESTS)
    world.ranges.change = lambda raw: bytes(len(raw))
    world.ranges.others = {"second": other}
    for _ in range(MOST_REFUSED + 1):
        world.fetch(EDITED)
    assert world.counts("refused_records", "rebuilt_blocks") == (MOST_REFUSED, 0)
    assert world.ranges.told_off == []
    assert world.mirrors.asked == [EDITED] * (MOST_REFUSED + 1)


def test_what_a_liar_sent_with_a_wrong_record_is_not_used_either(world):
    world.keep(*OLD_DIGESTS)
    world.source = PackSource(world.mirrors, world.ranges, world.store, wants_all=True)
    world.source.use(ACCELERATOR, INDEX)
    world.ranges.change = lambda raw: bytes(len(raw))
    world.ranges.others = {"second": lambda raw: raw}
    for record in INDEX.records.values():
        if record.is_rebuildable:
            world.fetch(record.digest)
        world.ranges.change = lambda raw: raw  # asked again, it would serve what is right
    assert world.ranges.told_off == ["first"]
    assert world.counts("refused_records") == (1,)
    assert world.mirrors.asked == []


def test_who_uses_a_pack_hears_once_that_it_proved_wrong(world):
    world.keep(*OLD_DIGESTS)
    heard = []
    world.source = PackSource(world.mirrors, world.ranges, world.store)
    world.source.use(ACCELERATOR, INDEX, lambda: heard.append(len(world.ranges.asked)))
    world.ranges.change = lambda raw: bytes(len(raw))
    for _ in range(MOST_REFUSED + 2):
        world.fetch(EDITED)
    assert heard == [MOST_REFUSED]


def test_a_pack_that_cannot_be_had_rests_after_a_few_reads_and_is_asked_for_again(world):
    """Else each read would first wait for it, for half of its time."""
    world.keep(*OLD_DIGESTS)
    clock = FakeClock()

    def silent(_):
        raise DeadlineExceededError("nothing came")

    def fetch(digest=EDITED):
        assert digest_of(world.source.fetch(digest, BLOCK, clock.deadline())) == digest

    world.ranges.change = silent
    for _ in range(MOST_FAILED + 3):
        fetch()
    assert len(world.ranges.asked) == MOST_FAILED
    assert len(world.mirrors.asked) == MOST_FAILED + 3
    fetch(COPIED)  # which needs no request
    assert len(world.mirrors.asked) == MOST_FAILED + 3
    clock.now += REST_S
    fetch()
    fetch()
    assert len(world.ranges.asked) == MOST_FAILED + 1
    clock.now += REST_S
    world.ranges.change = lambda raw: raw
    fetch()
    fetch()
    assert len(world.ranges.asked) == MOST_FAILED + 3


def test_who_was_called_off_says_nothing_against_a_pack(world):
    world.keep(*OLD_DIGESTS)
    clock = FakeClock()

    def called_off(_):
        deadline.cancellation.cancel("the machine stops")
        raise DeadlineExceededError("called off")

    world.ranges.change = called_off
    for _ in range(MOST_FAILED + 2):
        deadline = clock.deadline()
        world.source.fetch(EDITED, BLOCK, deadline)
    assert len(world.ranges.asked) == MOST_FAILED + 2


def test_all_packs_together_take_half_of_a_reads_time(world, monkeypatch):
    world.keep(*OLD_DIGESTS)
    world.source.use(replace(ACCELERATOR, sha256=digest_of(b"another pack")), INDEX)
    clock, given = FakeClock(), []

    def get_part(_accelerator, _start, _stop, deadline, **_):
        given.append(deadline.remaining_s())
        clock.now += deadline.remaining_s()
        raise DeadlineExceededError("nothing came")

    monkeypatch.setattr(world.ranges, "get_part", get_part)
    deadline = clock.deadline()
    whole = deadline.remaining_s()
    world.source.fetch(EDITED, BLOCK, deadline)
    assert given == [whole / 2, 0]
    assert deadline.remaining_s() == whole / 2


def test_an_error_of_the_mirrors_is_an_error(world):
    def down(*_):
        raise UnreachableError("down")

    world.mirrors.fetch = down
    with pytest.raises(UnreachableError):
        world.fetch(EDITED)


def test_a_pack_that_calls_nodes_blocks_does_not_empty_the_cache(world):
    node = FROM.manifest.root.digest
    world.keep(node)
    runs = (delta.Run(node, 0, BLOCK // delta.PAGE_SIZE),)
    patch = delta.MadePatch(digest_of(b"x"), OLD_DIGESTS[0], ((0, node),))
    made = [delta.MadeRecord(EDITED, 999, 0, runs)]
    world.source = PackSource(world.mirrors, world.ranges, world.store)
    world.source.use(ACCELERATOR, delta.parse_index(delta.build_index(TO.digest, FROM.digest, BLOCK, made, [patch])))
    world.keep(OLD_DIGESTS[0])
    world.fetch(EDITED)
    assert world.store.has(node)
    assert world.source.cost(patch.digest, NODE_SIZE) is None
    assert world.store.damaged == 0


def test_only_so_many_packs_are_used_and_each_once(world):
    world.source.use(ACCELERATOR, INDEX)
    assert world.counts("packs") == (1,)
    assert not world.source.is_full


def test_it_closes_what_is_behind_it(world):
    world.source.close()
    assert world.mirrors.closed
    assert world.ranges.closed
    assert world.source.window() == 5


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("full"))
    world.keep(*OLD_DIGESTS)
    return world


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_corruption_of_a_record_makes_a_wrong_block_and_each_is_counted(full, data):
    full.source = PackSource(full.mirrors, full.ranges, full.store)
    full.source.use(ACCELERATOR, INDEX)
    full.ranges.others = data.draw(st.sampled_from([{}, {"second": lambda raw: raw}]))
    at = data.draw(st.integers(0, INDEX.records[EDITED].length - 1))
    flip = data.draw(st.integers(1, 255))
    full.ranges.change = lambda raw: raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]
    record = INDEX.records[EDITED]
    harmless = False  # zstd has a bit that means nothing, and more than one way to say the same
    with contextlib.suppress(IntegrityError):
        spoiled = full.ranges.change(FILE[record.offset : record.offset + record.length])
        harmless = digest_of(delta_record.rebuild(record, spoiled, STORE.held.get)) == EDITED
    full.fetch(EDITED)
    expected = (0, 1) if harmless else (1, len(full.ranges.others))
    assert full.counts("refused_records", "rebuilt_blocks") == expected


def used_as_index(full, raw):
    """All that is in the image is read, with whatever such an index says."""
    full.ranges.change = lambda raw: raw
    full.source = PackSource(full.mirrors, full.ranges, full.store)
    with contextlib.suppress(DocumentRefusedError):
        full.source.use(ACCELERATOR, delta.parse_index(raw))
    for block in NEW:
        full.source.cost(digest_of(block), BLOCK)
        full.fetch(digest_of(block))
    full.fetch(TO.manifest.root.digest, NODE_SIZE)
    assert full.store.damaged == 0


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_corruption_of_an_index_makes_a_wrong_block(full, data):
    raw = bytearray(FILE[: ACCELERATOR.index_length])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    used_as_index(full, bytes(raw))


PACKED = FILE[delta.HEAD_SIZE : ACCELERATOR.index_length]
CONTENT = zstandard.ZstdDecompressor().decompress(PACKED)
FIELDS = len(CONTENT) // 4


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, FIELDS - 1),
            st.one_of(st.integers(0, 40), st.sampled_from([0xFFFF, 1 << 16, 0xFFFFFFFE, 0xFFFFFFFF])),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_lie_in_any_field_of_an_index_makes_a_wrong_block(full, lies):
    """As above, but inside of the frame, which whoever makes up an index packs rightly."""
    content = bytearray(CONTENT)
    for at, value in lies:
        struct.pack_into("<I", content, 4 * at, value)
    packed = zstandard.ZstdCompressor().compress(bytes(content))
    head = bytearray(FILE[: delta.HEAD_SIZE])
    struct.pack_into("<II", head, 8, len(packed), len(content))
    used_as_index(full, bytes(head) + packed)
