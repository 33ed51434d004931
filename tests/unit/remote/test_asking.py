import pytest

from oscirc_blockstore import frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DigestMismatchError,
    IntegrityError,
    NotServedError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.asking import Wanted, asked_pause_s, final_error, may_heal

from .fakes import BLOCK_SIZE, FakeClock, FakeFrames, block, blocks

DIGEST = digest_of(block(1))
WANTED = Wanted(DIGEST, BLOCK_SIZE)
GONE, MISSING, LIE = UnreachableError("gone"), NotServedError("404"), DigestMismatchError("other bytes")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def mirror(clock):
    return FakeFrames("mirror", blocks(1), clock)


class Lies:
    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def fetch(mirror, clock, lies=None):
    return WANTED.fetch(mirror, clock.deadline(), 1.5, lies or Lies())


def test_a_frame_becomes_a_verified_block_and_what_it_took_is_told(mirror, clock):
    mirror.costs_s = 0.25
    got = fetch(mirror, clock)
    assert got.raw == block(1)
    assert got.seconds == 0.25
    assert got.frame == frame.encode(block(1))


def test_a_lie_is_told_and_asked_for_once_more_past_caches(mirror, clock):
    lies = Lies()
    mirror.script = lambda past_caches: None if past_caches else frame.encode(block(2))
    assert fetch(mirror, clock, lies).raw == block(1)
    assert (lies.count, mirror.past_caches, mirror.requests) == (1, 1, 2)


@pytest.mark.parametrize("second", [frame.encode(block(3)), GONE, MISSING], ids=["a lie", "gone", "404"])
def test_when_there_is_no_block_past_caches_either_the_lie_is_what_is_raised(mirror, clock, second):
    mirror.script = lambda past_caches: second if past_caches else frame.encode(block(2))
    with pytest.raises(DigestMismatchError):
        fetch(mirror, clock)
    assert mirror.requests == 2


def test_what_is_no_lie_is_asked_for_once(mirror, clock):
    mirror.script = lambda _past_caches: GONE
    with pytest.raises(UnreachableError):
        fetch(mirror, clock)
    assert mirror.requests == 1


def test_what_may_heal():
    assert may_heal(GONE)
    assert may_heal(ServerRefusedError("busy", status=503))
    assert not may_heal(ServerRefusedError("never", status=403))
    assert not may_heal(MISSING)
    assert not may_heal(LIE)


def test_the_shortest_pause_that_a_server_asks_for_counts():
    late, soon = (ServerRefusedError("busy", status=503, retry_after_s=seconds) for seconds in (30.0, 5.0))
    assert asked_pause_s([late, soon, MISSING]) == 5.0
    assert asked_pause_s([late, GONE]) == 0.0
    assert asked_pause_s([MISSING]) == 0.0


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([MISSING, GONE, LIE], UnreachableError),
        ([DeadlineExceededError("late"), DeadlineExceededError("late")], DeadlineExceededError),
        ([DeadlineExceededError("late"), GONE], UnreachableError),
        ([MISSING, LIE], IntegrityError),
        ([MISSING, MISSING], NotServedError),
        ([MISSING, ServerRefusedError("never", status=403)], TransportError),
    ],
    ids=["may heal", "all late", "late or gone", "lies", "absent", "refused"],
)
def test_of_several_errors_one_is_made_that_names_the_mirrors(errors, kind):
    error = final_error(DIGEST, [(f"http://mirror-{number}", each) for number, each in enumerate(errors)])
    assert type(error) is kind
    assert all(f"http://mirror-{number}: {each}" in str(error) for number, each in enumerate(errors))
    assert DIGEST.hex() in str(error)
