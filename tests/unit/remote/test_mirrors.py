import pytest

from oscirc_blockstore import frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    IntegrityError,
    NotServedError,
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.standing import FIRST_DEMOTION_S, LIE_DEMOTION_S

from .fakes import BLOCK_SIZE, FakeClock, FakeFrames, block, blocks

RAW = block(1)
DIGEST = digest_of(RAW)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pair(clock):
    return [FakeFrames(name, blocks(1), clock) for name in ("first", "second")]


def mirrored(sources, clock):
    return MirroredSource(sources, clock=clock, start=lambda task: task())


def status_of(source, name):
    return next(status for status in source.mirror_status() if status.name == name)


def test_the_preferred_mirror_serves(pair, clock):
    source = mirrored(pair, clock)
    assert source.fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert [mirror.requests for mirror in pair] == [1, 0]
    assert status_of(source, "first").served == 1


def test_who_keeps_block_files_is_given_verified_ones_only(pair, clock):
    kept = []
    source = MirroredSource(
        pair, clock=clock, start=lambda task: task(), on_frame=lambda digest, raw: kept.append((digest, raw))
    )
    pair[0].script = lambda _past_caches: frame.encode(block(2))
    assert source.fetch(DIGEST, None, clock.deadline()) == RAW
    assert kept == [(DIGEST, frame.encode(RAW))]


@pytest.mark.parametrize("raw", [b"", b"short", frame.encode(bytes(100)), frame.encode(bytes(3 << 20))])
def test_of_unknown_size_only_what_a_block_or_node_may_have_is_taken(pair, clock, raw):
    for mirror in pair:
        mirror.script = lambda _past_caches: raw
    with pytest.raises(IntegrityError):
        mirrored(pair, clock).fetch(digest_of(bytes(100)), None, clock.deadline())


LIES = {
    "one flipped bit": bytes([*frame.encode(RAW)[:-1], frame.encode(RAW)[-1] ^ 1]),
    "a swapped block": frame.encode(block(2)),
    "a truncated frame": frame.encode(RAW)[:-1],
    "a padded frame": frame.encode(RAW) + b"\0",
    "two frames": frame.encode(RAW) * 2,
    "a bomb": frame.encode(bytes(1 << 20)),
    "no frame": b"<html>not found</html>",
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_is_not_the_block_is_never_returned_and_the_next_mirror_is_asked(pair, clock, lie):
    pair[0].script = lambda past_caches: lie
    source = mirrored(pair, clock)
    assert source.fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert status_of(source, "first").bad_blocks == 1
    assert status_of(source, "first").demoted


def test_a_poisoned_cache_is_passed_once(pair, clock):
    pair[0].script = lambda past_caches: None if past_caches else b"poison"
    source = mirrored(pair, clock)
    assert source.fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert pair[0].past_caches == 1
    assert pair[1].requests == 0
    assert not status_of(source, "first").demoted
    assert status_of(source, "first").bad_blocks == 1


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("down"),
        DeadlineExceededError("slow"),
        ServerRefusedError("busy", status=503),
        NotServedError("lagging"),
        ServerRefusedError("forbidden", status=403),
        OversizedResponseError("endless"),
    ],
)
def test_a_failing_mirror_is_passed_over_and_demoted(pair, clock, error):
    pair[0].script = lambda past_caches: error
    source = mirrored(pair, clock)
    for _ in range(3):
        assert source.fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert pair[1].requests == 3
    assert pair[0].requests - pair[0].past_caches == 1  # asked once, then demoted
    assert clock.waits == []


def test_the_only_mirror_gets_all_the_time_there_is(clock):
    only = FakeFrames("only", blocks(1), clock)
    mirrored([only], clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline(10))
    assert only.shares == [10]


def test_a_demoted_mirror_is_probed_when_its_time_is_over_and_restored(pair, clock):
    pair[0].script = lambda past_caches: UnreachableError("down")
    source = mirrored(pair, clock)
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    clock.now += FIRST_DEMOTION_S + 1
    pair[0].script = lambda past_caches: None
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert pair[0].requests == 2
    assert not status_of(source, "first").demoted


def test_each_failure_in_a_row_demotes_for_longer(pair, clock):
    pair[0].script = lambda past_caches: UnreachableError("down")
    source = mirrored(pair, clock)
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    clock.now += FIRST_DEMOTION_S + 1
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    clock.now += FIRST_DEMOTION_S + 1
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert pair[0].requests == 2
    clock.now += FIRST_DEMOTION_S + 1
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert pair[0].requests == 3


def test_a_liar_is_demoted_for_longer_than_a_dead_one(pair, clock):
    pair[0].script = lambda past_caches: b"lie"
    source = mirrored(pair, clock)
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    clock.now += LIE_DEMOTION_S - 1
    assert status_of(source, "first").demoted


def test_while_one_fetch_probes_the_others_keep_to_the_good_mirror(pair, clock):
    pair[0].script = lambda past_caches: UnreachableError("down")
    source = mirrored(pair, clock)
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    clock.now += FIRST_DEMOTION_S + 1
    asked = []

    def probing(past_caches):
        pair[0].script = lambda past_caches: None
        source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())  # another thread's fetch, while the probe is under way
        asked.append(pair[1].requests)

    pair[0].script = probing
    source.fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert asked == [2]


def test_what_may_heal_is_tried_again_until_it_does(pair, clock):
    answers = iter([UnreachableError("down")] * 6 + [None] * 6)
    for mirror in pair:
        mirror.script = lambda past_caches: next(answers)
    assert mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert clock.waits
    assert clock.waits == sorted(clock.waits)  # the pauses grow


@pytest.mark.parametrize(
    ("error", "raised"),
    [(UnreachableError("cut"), UnreachableError), (DeadlineExceededError("x"), DeadlineExceededError)],
)
def test_the_deadline_ends_the_retries(pair, clock, error, raised):
    for mirror in pair:
        mirror.script = lambda past_caches: error
    deadline = clock.deadline(10)
    with pytest.raises(raised) as failure:
        mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, deadline)
    assert failure.value.retryable
    assert failure.value.hint
    assert clock.now <= deadline.at
    assert pair[0].requests > 4


def test_servers_that_are_busy_are_asked_again_when_the_first_of_them_said(pair, clock):
    answers = iter([ServerRefusedError("busy", status=503, retry_after_s=s) for s in (3, 2)] + [None] * 2)
    for mirror in pair:
        mirror.script = lambda past_caches: next(answers)
    assert mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW
    assert clock.waits == [2]


def test_a_busy_server_does_not_take_all_of_the_time_that_is_left(clock):
    only = FakeFrames("only", blocks(1), clock)
    answers = iter([ServerRefusedError("busy", status=503, retry_after_s=3600), None])
    only.script = lambda past_caches: next(answers)
    assert mirrored([only], clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline(6)) == RAW
    assert clock.waits == [3]


def test_lies_everywhere_are_an_integrity_error_that_names_the_mirrors_at_once(pair, clock):
    for mirror in pair:
        mirror.script = lambda past_caches: b"lie"
    with pytest.raises(IntegrityError, match=r"first.*second"):
        mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert clock.waits == []


def test_absence_everywhere_is_said_at_once(clock):
    sources = [FakeFrames("first", {}, clock), FakeFrames("second", {}, clock)]
    with pytest.raises(NotServedError):
        mirrored(sources, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert clock.waits == []


def test_a_refusal_everywhere_is_not_retried(pair, clock):
    for mirror in pair:
        mirror.script = lambda past_caches: ServerRefusedError("forbidden", status=403)
    with pytest.raises(TransportError) as failure:
        mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline())
    assert not failure.value.retryable
    assert clock.waits == []


def test_a_lie_beside_an_unreachable_mirror_may_heal(pair, clock):
    pair[0].script = lambda past_caches: b"lie"
    answers = iter([UnreachableError("down"), None])
    pair[1].script = lambda past_caches: next(answers)
    assert mirrored(pair, clock).fetch(DIGEST, BLOCK_SIZE, clock.deadline()) == RAW


def test_what_the_reader_calls_off_demotes_nobody(pair, clock):
    deadline = clock.deadline()

    def called_off(past_caches):
        deadline.cancellation.cancel("reads are being failed")
        return DeadlineExceededError("called off")

    pair[0].script = called_off
    source = mirrored(pair, clock)
    with pytest.raises(DeadlineExceededError):
        source.fetch(DIGEST, BLOCK_SIZE, deadline)
    assert not status_of(source, "first").demoted


def test_closing_closes_every_mirror(pair, clock):
    mirrored(pair, clock).close()
    assert all(mirror.closed for mirror in pair)


def test_there_must_be_a_source():
    with pytest.raises(ValueError, match="at least one"):
        MirroredSource([])
