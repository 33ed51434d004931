"""What was left alone of an earlier version is not guessed, as long as reads bear that out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from oscirc_blockstore import manifest as manifests
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.table import Geometry, TableBuilder
from oscirc_remote.left_alone import ALLAYED, DOUBTFUL, MOST_DOUBT, LeftAlone, earlier_table
from oscirc_remote.look_ahead import LookAhead
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.table_view import TableView

from .fakes import block, make_image
from .test_receipts import NOW, RECEIPT

BLOCK_SIZE = 1 << 16
COUNT = 64
CHANGED = range(20, 30)
READ = frozenset(range(3, 12))


class World:
    """Two versions of one disk, equal but for `CHANGED` and a longer end; of the old one `READ` was read here."""

    def __init__(self):
        self.nodes, self.here = {}, set()
        self.old = self.table(COUNT, "old")
        self.new = self.table(COUNT + 8, "new")
        self.here.update(name(position, "old") for position in READ)
        self.left_alone = LeftAlone(self.new, self.old, self.nodes.get, self.here.__contains__)

    def table(self, count, version):
        geometry = Geometry(count * BLOCK_SIZE, BLOCK_SIZE)
        builder = TableBuilder(geometry, self.nodes.__setitem__)
        for position in range(2, count):  # the first two are zeros
            builder.add(position, name(position, version))
        return TableView(geometry, builder.finish())


def name(position, version):
    return digest_of(f"{position} {version if position in CHANGED else ''}".encode())


@pytest.fixture
def world():
    return World()


def passed(judge):
    return {position for position in range(COUNT + 8) if judge(position)}


def test_guesses_pass_over_every_place_that_was_left_alone(world):
    assert passed(world.left_alone.passes_guess) == set(range(2, COUNT)) - READ


def test_what_is_known_by_its_name_is_passed_over_only_where_it_is_the_same(world):
    assert passed(world.left_alone.passes_foreseen) == set(range(2, COUNT)) - READ - set(CHANGED)


def test_without_an_earlier_version_nothing_is_passed_over(world):
    assert not passed(LeftAlone(world.new, None, world.nodes.get, lambda _digest: False).passes_guess)


def test_what_is_not_here_of_either_table_is_not_fetched_and_says_nothing(world):
    world.nodes.clear()
    assert not passed(world.left_alone.passes_guess)


def test_in_doubt_nothing_is_passed_over_until_reads_allay_it(world):
    for position in range(40, 40 + int(DOUBTFUL)):
        assert world.left_alone.holds
        world.left_alone.note(position, present=False)
    assert not world.left_alone.holds
    assert not passed(world.left_alone.passes_guess) | passed(world.left_alone.passes_foreseen)
    world.left_alone.note(4, present=True)
    assert world.left_alone.holds


def test_what_reads_in_the_past_have_borne_out_does_not_outweigh_what_is_new(world):
    for _ in range(1000):
        world.left_alone.note(4, present=True)
    for position in range(40, 40 + int(DOUBTFUL)):
        world.left_alone.note(position, present=False)
    assert not world.left_alone.holds


def test_doubt_is_bounded(world):
    for position in [40] * 1000:
        world.left_alone.note(position, present=False)
    for _ in range(int((MOST_DOUBT - DOUBTFUL) / ALLAYED) + 1):
        world.left_alone.note(4, present=True)
    assert world.left_alone.holds


def test_changed_blocks_and_zeros_prove_nothing(world):
    for position in (0, 1, *CHANGED, COUNT, COUNT + 7, 10_000):
        world.left_alone.note(position, present=False)
    assert world.left_alone.holds


def test_of_a_version_that_nobody_booted_nothing_is_concluded(world):
    world.left_alone.weigh([*READ, *range(40, 40 + len(READ))])
    assert world.left_alone.holds
    world.left_alone.weigh([*READ, *range(40, 41 + len(READ))])
    assert not world.left_alone.holds


def test_guesses_come_back_with_the_doubt(world):
    ahead = LookAhead(COUNT, lambda position: position not in READ, world.left_alone)
    ahead.guess()
    assert ahead.on_access(CHANGED.start, CHANGED.start, waited=True) == []
    for position in (40, 45, 50):
        ahead.on_access(position, position, waited=True)
    assert ahead.on_access(55, 55, waited=True) == [56, 57]


def test_the_earlier_version_is_the_one_that_was_verified_last(tmp_path):
    book = ReceiptBook(tmp_path)
    made = [make_image({3: block(number)}, 1 << 20)[0] for number in (1, 2, 3)]
    for days, (label, manifest) in enumerate(zip("132", (made[0], made[2], made[1]), strict=True)):
        raw = manifest.serialise()
        book.keep_manifest(digest_of(raw), raw)
        book.write(
            replace(RECEIPT, version=label, manifest=digest_of(raw), channels=(), verified=NOW + timedelta(days=days))
        )
    found = earlier_table(book, "alice", "debian", made[1])
    assert found is not None
    digest = made[2].root.digest
    asked = []
    found.digest_at(3, asked.append)
    assert asked == [digest]
    assert earlier_table(book, "alice", "other", made[1]) is None


def test_a_disk_in_other_blocks_is_no_earlier_version(tmp_path):
    book = ReceiptBook(tmp_path)
    one = make_image({3: block(1)}, 1 << 20)[0]
    other = make_image({3: block(1)}, 1 << 20, 1 << 17)[0]
    raw = other.serialise()
    book.keep_manifest(digest_of(raw), raw)
    book.write(replace(RECEIPT, manifest=digest_of(raw)))
    assert earlier_table(book, "alice", "debian", one) is None
    assert manifests.parse_verified(raw, digest_of(raw)) == other
