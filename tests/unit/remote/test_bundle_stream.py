"""A bundle comes into the cache whole or in part, whatever its mirrors do; never a byte that was not verified."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscirc_blockstore import bundle
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    IntegrityError,
    LocalError,
    NotServedError,
    ServerRefusedError,
    UnreachableError,
)
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import bundle_tries
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_stream import UNASKED_BYTES, BundleStream
from oscirc_remote.bundle_tries import MOST_IN_VAIN, REFUSALS
from oscirc_remote.stream_files import StreamFiles, Told, tag

from .bundles import Image, Keeper, Mirrors, ScriptedDownload, breaking_off, honest, refusing
from .fakes import BLOCK_SIZE, FakeClock, block

IMAGE = Image()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(bundle_tries, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(bundle_tries, "LONGEST_PAUSE_S", 0.0)


class World:
    """A stream with what it needs; `run` runs it to its end."""

    def __init__(self, directory, mirrors, image=IMAGE, keeper=None, **options):
        self.image, self.mirrors = image, mirrors
        self.keeper = keeper or Keeper()
        self.arrivals = Arrivals(FakeClock())  # no time passes: a busy machine is no stalled mirror
        self.pushed = []
        self.stream = BundleStream(
            image.accelerator,
            image.digest,
            image.manifest,
            self.keeper,
            mirrors,
            self.arrivals,
            StreamFiles(directory, image.accelerator.sha256),
            on_block=self.pushed.append,
            **options,
        )

    def run(self):
        self.stream.run()
        return self


def accounted_for(world):
    """What came, and what is left for single requests: less than half of a segment that broke."""
    left = {each.digest for each in world.stream.left_out()}
    assert not left & set(world.keeper.kept)
    return left | set(world.keeper.kept)


def test_all_of_it_comes_in_one_request_and_in_order(tmp_path):
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw))).run()
    assert set(world.keeper.kept) == IMAGE.named
    assert world.mirrors.opened == [("one", 0, len(IMAGE.raw))]
    assert world.pushed == IMAGE.positions
    assert world.stream.state == "complete"
    assert (world.stream.counters["blocks"], world.stream.counters["nodes"]) == (12, 1)
    assert not any(world.arrivals.expects(digest) for digest in IMAGE.named)
    assert world.mirrors.reports == [("one", None, len(IMAGE.raw))]


def test_what_is_here_is_passed_over_by_segments(tmp_path):
    have = {digest: IMAGE.stored[digest] for group in (0, 2) for digest in (e.digest for e in IMAGE.groups[group])}
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)), keeper=Keeper(have)).run()
    assert set(world.keeper.kept) == IMAGE.named
    index = bundle.parse_index(IMAGE.index)
    first, last = index.segments[1], index.segments[3]
    assert world.mirrors.opened[1:] == [
        ("one", first.offset, first.offset + first.length),
        ("one", last.offset, last.offset + last.length),
    ]
    assert world.stream.counters["blocks"] == 8


def together(blocks=8):
    """As a publisher cuts it: the nodes in one segment with blocks, most of which are here already."""
    image = Image(count=24)
    entries = [entry for group in image.groups for entry in group]
    image.groups = [tuple(entries[: 1 + blocks]), tuple(entries[1 + blocks :])]
    image.seal()
    have = {entry.digest: image.stored[entry.digest] for entry in entries[1 : 1 + blocks]}
    return image, Keeper(have)


def test_nodes_of_a_segment_that_is_mostly_here_are_fetched_alone(tmp_path):
    image, keeper = together()

    def load(digests):
        keeper.kept.update({digest: image.stored[digest] for digest in digests})

    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image, keeper=keeper, load_nodes=load).run()
    assert set(keeper.kept) == image.named
    assert world.stream.state == "complete"
    assert world.mirrors.blamed() == []
    assert world.stream.counters["blocks"] == 24 - 8


def test_nodes_that_cannot_be_had_alone_come_with_their_segment(tmp_path):
    image, keeper = together()
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image, keeper=keeper).run()
    assert set(keeper.kept) == image.named
    assert world.mirrors.blamed() == []


def test_a_segment_that_is_mostly_here_is_left_for_single_requests(tmp_path):
    most = IMAGE.groups[1][:3]
    have = {each.digest: IMAGE.stored[each.digest] for each in (*IMAGE.groups[0], *most)}
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)), keeper=Keeper(have)).run()
    assert [each.digest for each in world.stream.left_out()] == [IMAGE.groups[1][3].digest]


def test_a_second_run_goes_by_the_index_that_the_first_left(tmp_path):
    World(tmp_path, Mirrors(one=honest(IMAGE.raw))).run()
    have = {each.digest: IMAGE.stored[each.digest] for group in IMAGE.groups[:3] for each in group}
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)), keeper=Keeper(have)).run()
    last = bundle.parse_index(IMAGE.index).segments[3]
    assert world.mirrors.opened == [("one", last.offset, last.offset + last.length)]


def test_when_all_is_here_nothing_is_asked_for(tmp_path):
    World(tmp_path, Mirrors(one=honest(IMAGE.raw))).run()
    world = World(tmp_path, Mirrors(), keeper=Keeper({digest: IMAGE.stored[digest] for digest in IMAGE.named})).run()
    assert (world.stream.state, world.mirrors.opened) == ("complete", [])


@pytest.mark.parametrize(
    "after", [0, 10, len(IMAGE.index) - 1, len(IMAGE.index), len(IMAGE.index) + 300, len(IMAGE.raw) - 1]
)
def test_a_mirror_that_breaks_off_is_followed_by_another_at_the_segment_that_broke(tmp_path, after):
    world = World(tmp_path, Mirrors(one=breaking_off(IMAGE.raw, after), two=honest(IMAGE.raw))).run()
    assert accounted_for(world) == IMAGE.named
    assert "one" in world.mirrors.blamed()
    assert world.stream.state == "complete"
    if after > len(IMAGE.index):
        assert all(start >= len(IMAGE.index) for _, start, _ in world.mirrors.opened[1:])


LIES = {
    "a flipped bit in a segment": lambda raw: raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:],
    "a flipped bit in the index": lambda raw: raw[:70] + bytes([raw[70] ^ 1]) + raw[71:],
    "another image's index": lambda _: Image(count=5).raw.ljust(len(IMAGE.raw), b"\0"),
    "another file": lambda raw: b"<html>" + raw[6:],
    "an index beyond the file": lambda raw: raw[:12] + b"\xff\xff\x0f\x00" + raw[16:],
    "zeros": lambda raw: bytes(len(raw)),
    "swapped segments": lambda raw: raw[: len(IMAGE.index)] + raw[len(IMAGE.index) :][::-1],
}


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_lying_mirror_is_blamed_and_the_other_is_used(tmp_path, lie):
    world = World(tmp_path, Mirrors(liar=honest(LIES[lie](IMAGE.raw)), two=honest(IMAGE.raw))).run()
    assert accounted_for(world) == IMAGE.named
    assert isinstance(world.mirrors.reports[0][1], IntegrityError)
    assert set(world.mirrors.blamed()) == {"liar"}


def test_of_an_index_and_a_segment_that_contradict_each_other_no_honest_mirror_is_blamed(tmp_path):
    """One mirror's index names another block, and then it breaks off; the next one's segments are right."""
    wrong = bytearray(IMAGE.raw)
    digests_at = IMAGE.index.index(IMAGE.digest_at(5))
    wrong[digests_at] ^= 1
    world = World(
        tmp_path, Mirrors(liar=breaking_off(bytes(wrong), len(IMAGE.index) + 10), two=honest(IMAGE.raw))
    ).run()
    assert world.stream.state == "complete"
    assert accounted_for(world) == IMAGE.named
    assert "two" not in world.mirrors.blamed()


def test_when_all_lie_it_fails_and_keeps_what_was_right(tmp_path):
    at = bundle.parse_index(IMAGE.index).segments[1].offset + 60
    lie = IMAGE.raw[:at] + bytes([IMAGE.raw[at] ^ 0xFF]) + IMAGE.raw[at + 1 :]
    world = World(tmp_path, Mirrors(one=honest(lie), two=honest(lie))).run()
    assert world.stream.state == "failed"
    assert set(world.mirrors.blamed()) == {"one", "two"}
    assert isinstance(world.stream.problem, IntegrityError)
    assert set(world.keeper.kept) < IMAGE.named


def test_a_bundle_that_nobody_serves_fails_at_once(tmp_path):
    missing = refusing(NotServedError("404"))
    world = World(tmp_path, Mirrors(one=missing, two=missing)).run()
    assert world.stream.state == "failed"
    assert len(world.mirrors.opened) == 2


def test_mirrors_that_may_come_back_are_asked_again(tmp_path):
    asked = []

    def flaky(start, stop):
        asked.append(start)
        return (IMAGE.raw[start:stop], None) if len(asked) > 3 else (b"", DeadlineExceededError("silence"))

    world = World(tmp_path, Mirrors(one=flaky)).run()
    assert world.stream.state == "complete"
    assert len(asked) == 4


def test_closing_ends_a_stream_that_nobody_serves(tmp_path):
    world = World(tmp_path, Mirrors())

    def unreachable(_start, _stop):
        if len(world.mirrors.opened) == 5:
            world.stream.close()
        return b"", UnreachableError("gone")

    world.mirrors.mirrors["one"] = unreachable
    world.run()
    assert world.stream.state == "ended"


def test_blocks_that_the_image_does_not_have_are_not_kept_and_soon_ended(tmp_path):
    junk = [block(1000 + number) for number in range(UNASKED_BYTES // BLOCK_SIZE + 2)]
    image = Image(count=120, positions=range(8), extra=junk)
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image).run()
    assert not {digest_of(raw) for raw in junk} & set(world.keeper.kept)
    assert isinstance(world.stream.problem, DocumentRefusedError)
    assert world.stream.state == "failed"


def test_a_bundle_that_is_longer_than_the_disk_could_make_it_is_not_asked_for(tmp_path):
    image = Image()
    image.accelerator = type(image.accelerator)("bundle", "boot", image.accelerator.sha256, 1 << 40, 100)
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image).run()
    assert (world.stream.state, world.mirrors.opened) == ("failed", [])


def test_a_server_that_refuses_again_and_again_is_left(tmp_path):
    world = World(tmp_path, Mirrors(one=refusing(ServerRefusedError("no", status=500)))).run()
    assert world.stream.state == "failed"
    assert len(world.mirrors.opened) == REFUSALS + 1


def test_a_file_that_is_too_short_everywhere_is_left_after_a_while(tmp_path):
    short = honest(IMAGE.raw[: len(IMAGE.raw) // 2])
    world = World(tmp_path, Mirrors(one=short, two=short)).run()
    assert world.stream.state == "failed"
    assert len(world.mirrors.opened) <= MOST_IN_VAIN + 3
    assert accounted_for(world) == IMAGE.named


def test_one_mirror_that_lacks_it_does_not_end_the_waiting_for_another(tmp_path):
    asked = []

    def back_later(start, stop):
        asked.append(start)
        return (IMAGE.raw[start:stop], None) if len(asked) > 3 else (b"", UnreachableError("gone"))

    world = World(tmp_path, Mirrors(one=back_later, two=refusing(NotServedError("404")))).run()
    assert world.stream.state == "complete"


def test_an_index_that_calls_cached_blocks_nodes_does_not_empty_the_cache(tmp_path):
    """The cache takes a file that is not as long as was asked for to be damaged: it must not be asked by a stranger."""
    lie = Image()
    blocks = [Entry(each.digest, NODE_SIZE) for group in lie.groups[1:] for each in group]
    raw = bundle.build_index(lie.digest, BLOCK_SIZE, [lie.groups[0], tuple(blocks)], [200, 300]) + bytes(500)
    lie.accelerator = type(lie.accelerator)("bundle", "boot", digest_of(raw), len(raw), len(raw) - 500)
    have = {digest: IMAGE.stored[digest] for digest in IMAGE.named}
    world = World(tmp_path, Mirrors(liar=honest(raw)), image=lie, keeper=Keeper(have)).run()
    assert world.keeper.kept == have
    assert list(world.stream.left_out()) == []


def test_what_only_a_bundle_names_is_not_left_for_single_requests_either(tmp_path):
    """Else a liar could fill the cache by them, with nodes that no table has."""
    image = Image()
    image.groups[1] = (*image.groups[1][:2], Entry(digest_of(b"a node of the liar's"), NODE_SIZE))
    image.contents[digest_of(b"a node of the liar's")] = bytes(NODE_SIZE)
    image.seal()
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image).run()
    assert world.stream.state == "failed"
    left = {each.digest for each in world.stream.left_out()}
    assert left
    assert left <= set(IMAGE.stored)


def test_the_index_that_stays_wrong_is_judged_once(tmp_path):
    """A follower whose leader could not write the index it goes by: the old one is not read again and again."""
    files = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    files.keep_index(IMAGE.index)
    assert files.new_index() == IMAGE.index
    assert files.new_index() is None
    files.keep_index(IMAGE.index[:-1])
    assert files.new_index() == IMAGE.index[:-1]


def test_without_a_thread_it_ends_by_an_error_of_this_machine(tmp_path):
    class NoThreads(Mirrors):
        def open(self, accelerator, start, stop, skip):
            raise LocalError("no thread to download with")

    world = World(tmp_path, NoThreads())
    with pytest.raises(LocalError):
        world.run()
    assert world.stream.state == "ended"
    assert StreamFiles(tmp_path, IMAGE.accelerator.sha256).try_lock()


def test_a_little_that_nobody_wants_is_passed_over(tmp_path):
    image = Image(positions=range(8), extra=[block(10_000)])
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image).run()
    assert world.stream.state == "complete"
    assert set(world.keeper.kept) == image.named - {digest_of(block(10_000))}


def test_blocks_before_their_node_are_not_wanted_yet(tmp_path):
    """Whether the table asks for a block is known only when the node that names it is here."""
    image = Image()
    image.groups = [*image.groups[1:], image.groups[0]]
    image.seal()
    world = World(tmp_path, Mirrors(one=honest(image.raw)), image=image).run()
    assert set(world.keeper.kept) == {each.digest for each in image.groups[-1]}


def test_an_early_download_is_used_first(tmp_path):
    early = ScriptedDownload("hinted", IMAGE.raw, 0, len(IMAGE.raw))
    files = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    assert files.try_lock()
    stream = BundleStream(
        *(IMAGE.accelerator, IMAGE.digest, IMAGE.manifest, keeper := Keeper(), mirrors := Mirrors(), Arrivals(), files),
        leading=True,
        early=early,
    )
    stream.run()
    assert (stream.state, set(keeper.kept), mirrors.opened, early.closed) == ("complete", IMAGE.named, [], True)


def test_an_index_that_was_left_by_a_liar_is_taken_away(tmp_path):
    files = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    files.keep_index(Image(count=5).index)
    files.close()
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw))).run()
    assert world.stream.state == "complete"
    assert StreamFiles(tmp_path, IMAGE.accelerator.sha256).index() == IMAGE.index


def test_a_follower_learns_what_comes_and_what_will_not_and_takes_over(tmp_path):
    leader = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    assert leader.try_lock()
    leader.keep_index(IMAGE.index)
    keeper = Keeper({each.digest: IMAGE.stored[each.digest] for each in IMAGE.groups[0]})
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)), keeper=keeper)
    thread = threading.Thread(target=world.run)
    thread.start()
    first, second = IMAGE.groups[1][:2]

    def until(condition):
        for _ in range(2000):
            if condition():
                return
            thread.join(0.005)
        raise AssertionError("it did not come to that")

    until(lambda: not world.arrivals.expects(digest_of(b"in no bundle")))  # so the index is known
    assert world.arrivals.expects(first.digest)
    assert world.mirrors.opened == []
    keeper.kept[first.digest] = IMAGE.stored[first.digest]  # the leader brought one and could not keep the other
    leader.tell(Told(bundle.parse_index(IMAGE.index).segments[1].offset, 1e6, 3, tag(IMAGE.index)))
    until(lambda: not world.arrivals.expects(first.digest) and not world.arrivals.expects(second.digest))
    assert world.pushed == [0]
    leader.close()  # as the kernel does when it dies
    thread.join(20)
    assert world.stream.state == "complete"
    assert set(keeper.kept) == IMAGE.named


def test_a_follower_that_begins_late_waits_for_the_whole_of_the_segment_under_way(tmp_path):
    """Most of it is here already, but its end comes too; what is mostly here of another segment does not."""
    leader = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    assert leader.try_lock()
    leader.keep_index(IMAGE.index)
    segments = bundle.parse_index(IMAGE.index).segments
    leader.tell(Told(segments[1].offset + segments[1].length - 1, 1e6, 4, tag(IMAGE.index)))
    here = (*IMAGE.groups[0], *IMAGE.groups[1][:3], *IMAGE.groups[2][:3])
    keeper = Keeper({each.digest: IMAGE.stored[each.digest] for each in here})
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)), keeper=keeper)
    thread = threading.Thread(target=world.run)
    thread.start()
    for _ in range(2000):
        if not world.arrivals.expects(digest_of(b"in no bundle")):  # so the index is known
            break
        thread.join(0.005)
    expected = [world.arrivals.expects(IMAGE.groups[group][3].digest) for group in (1, 2)]
    world.stream.close()
    thread.join(20)
    leader.close()
    assert expected == [True, False]


def test_a_follower_does_not_believe_what_is_told_of_another_index(tmp_path):
    leader = StreamFiles(tmp_path, IMAGE.accelerator.sha256)
    assert leader.try_lock()
    leader.keep_index(IMAGE.index)
    leader.tell(Told(10**6, 1e6, 99, b"another!"))
    world = World(tmp_path, Mirrors(one=honest(IMAGE.raw)))
    thread = threading.Thread(target=world.run)
    thread.start()
    digest = IMAGE.groups[1][0].digest
    for _ in range(2000):
        if world.stream.state == "following" and world.arrivals.progress.offset == 0 and world.arrivals.expects(digest):
            break
        thread.join(0.005)
    assert world.arrivals.expects(digest)
    world.stream.close()
    thread.join(20)
    leader.close()
    assert world.keeper.kept == {}


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_whatever_a_mirror_sends_nothing_unverified_is_kept_and_the_rest_comes_from_the_other(tmp_path_factory, data):
    raw = bytearray(IMAGE.raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    tail = data.draw(st.binary(max_size=100))
    damaged = bytes(raw[:cut]) + tail + bytes(raw[cut:])
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    world = World(tmp_path_factory.mktemp("cache"), Mirrors(liar=honest(damaged), two=honest(IMAGE.raw))).run()
    assert world.stream.state == "complete"
    assert accounted_for(world) == IMAGE.named


def test_entries_in_a_segment_that_expands_without_end_are_refused_in_bounded_memory(tmp_path):
    """A frame that claims to be small and is a gigabyte of zeros: no more than an entry and the window is held."""
    import tracemalloc

    import zstandard

    bomb = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(256 << 20))
    group = (Entry(IMAGE.digest_at(0), BLOCK_SIZE),)
    index = bundle.build_index(IMAGE.digest, BLOCK_SIZE, [group], [len(bomb)])
    raw = index + bomb
    image = Image()
    image.accelerator = type(image.accelerator)("bundle", "boot", digest_of(raw), len(raw), len(index))
    tracemalloc.start()
    world = World(tmp_path, Mirrors(liar=honest(raw)), image=image).run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert world.stream.state == "failed"
    assert world.keeper.kept == {}
    assert peak < 32 << 20


def test_a_segment_is_not_streamed_where_packs_make_what_is_missing_cheaper(tmp_path):
    costs = {IMAGE.digest_at(at): 40 for at in range(4)}
    world = World(tmp_path, Mirrors(a=honest(IMAGE.raw)), keeper=Keeper(costs=costs)).run()
    assert [entry.digest for entry in world.stream.left_out()] == list(costs)
    assert {*world.keeper.kept} == IMAGE.named - {*costs}


def test_a_segment_is_streamed_where_single_requests_would_move_more(tmp_path):
    costs = {IMAGE.digest_at(at): 1 << 20 for at in range(4)}
    world = World(tmp_path, Mirrors(a=honest(IMAGE.raw)), keeper=Keeper(costs=costs)).run()
    assert list(world.stream.left_out()) == []


def test_with_packs_a_segment_of_which_little_is_here_is_streamed_and_one_of_which_half_is_not(tmp_path):
    here = {IMAGE.digest_at(at): IMAGE.contents[IMAGE.digest_at(at)] for at in (4, 5)}
    costs = {IMAGE.digest_at(at): 1 << 20 for at in range(4)}
    costs[IMAGE.digest_at(6)] = 1
    world = World(tmp_path, Mirrors(a=honest(IMAGE.raw)), keeper=Keeper(here, costs)).run()
    assert [entry.digest for entry in world.stream.left_out()] == [IMAGE.digest_at(6), IMAGE.digest_at(7)]
