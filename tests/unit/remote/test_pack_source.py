"""Delta packs on a workstation: taken where they are cheaper and their old blocks are here, believed never."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import delta, delta_making, frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, NotServedError, UnreachableError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.pack_source import MOST_REFUSED, PackSource
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
    """The pack's file; `change` may spoil it or raise."""

    def __init__(self):
        self.change = lambda raw: raw
        self.asked, self.closed = [], False

    def get_range(self, accelerator, start, stop, deadline):
        assert accelerator == ACCELERATOR
        self.asked.append((start, stop))
        return self.change(FILE[start:stop])

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
    at = data.draw(st.integers(0, INDEX.records[EDITED].length - 1))
    flip = data.draw(st.integers(1, 255))
    full.ranges.change = lambda raw: raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]
    full.fetch(EDITED)
    assert full.counts("refused_records", "rebuilt_blocks") == (1, 0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_corruption_of_an_index_makes_a_wrong_block(full, data):
    raw = bytearray(FILE[: ACCELERATOR.index_length])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    full.ranges.change = lambda raw: raw
    full.source = PackSource(full.mirrors, full.ranges, full.store)
    with contextlib.suppress(DocumentRefusedError):
        full.source.use(ACCELERATOR, delta.parse_index(bytes(raw)))
    for raw_block in NEW:
        full.fetch(digest_of(raw_block))
    full.fetch(TO.manifest.root.digest, NODE_SIZE)
