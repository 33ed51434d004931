import pytest

from oscirc_blockstore.errors import DeadlineExceededError, NotServedError, UnreachableError
from oscirc_remote.outage import SUSPECT_S, NetworkStatus, Outage
from oscirc_remote.status import MirrorStatus

from .fakes import FakeClock


class World:
    def __init__(self):
        self.clock = FakeClock()
        self.served = 0
        self.demoted = False
        self.outage = Outage(self.mirrors, self.clock)

    def mirrors(self):
        problem = "connection refused" if self.demoted else ""
        return (MirrorStatus("http://one", self.demoted, 1, 1, self.served, 0, 0, 0, problem),)

    def read(self, seconds, error=None):
        with self.outage.reading():
            self.clock.now += seconds
            if error is not None:
                raise error

    def fails(self, seconds, error=None):
        error = error or UnreachableError("nobody answers")
        with pytest.raises(type(error)):
            self.read(seconds, error)


@pytest.fixture
def world():
    return World()


def test_nothing_is_wrong_before_anything_failed(world):
    world.read(60)
    assert world.outage.status() == NetworkStatus()


def test_a_failed_read_begins_an_outage_that_lasts_since_the_read_began(world):
    world.read(1)
    world.clock.now += 5
    world.fails(10)
    world.clock.now += 4
    assert world.outage.status() == NetworkStatus(0, "nobody answers", 14.0)
    world.fails(10, DeadlineExceededError("no answer in the time given"))
    assert world.outage.status() == NetworkStatus(0, "no answer in the time given", 24.0)


def test_a_read_that_only_ran_out_of_time_tells_what_its_mirrors_did(world):
    world.demoted = True
    world.fails(10, DeadlineExceededError("no answer in the time given"))
    assert world.outage.status().problem == "no answer in the time given (http://one: connection refused)"
    world.fails(10)
    assert world.outage.status().problem == "nobody answers"


def test_an_answer_ends_it(world):
    world.fails(10)
    world.read(1)
    assert world.outage.status() == NetworkStatus()


def test_an_outage_did_not_begin_before_the_last_answer(world):
    with pytest.raises(UnreachableError), world.outage.reading():
        world.clock.now += 4
        world.read(0)
        world.clock.now += 6
        raise UnreachableError("nobody answers")
    assert world.outage.status().gone_s == 6.0


def test_a_block_that_came_for_nobody_ends_it_too(world):
    world.served = 7
    world.fails(10)
    assert world.outage.status().problem
    world.served = 8
    assert world.outage.status() == NetworkStatus()


def test_a_read_that_waits_long_while_every_mirror_is_in_trouble_is_an_outage_already(world):
    world.demoted = True
    with world.outage.reading():
        world.clock.now += SUSPECT_S - 0.1
        assert world.outage.status() == NetworkStatus(1)
        world.clock.now += 0.1
        assert world.outage.status() == NetworkStatus(1, "http://one: connection refused", SUSPECT_S)
    assert world.outage.status() == NetworkStatus()


def test_a_read_that_waits_long_on_a_slow_link_is_none(world):
    with world.outage.reading():
        world.clock.now += 9
        assert world.outage.status() == NetworkStatus(1)


def test_a_block_that_nobody_has_is_no_outage(world):
    world.fails(1, NotServedError("nobody has it"))
    assert world.outage.status() == NetworkStatus()


def test_reads_that_this_machine_called_off_are_no_outage(world):
    with pytest.raises(DeadlineExceededError), world.outage.reading():
        world.outage.called_off()
        raise DeadlineExceededError("reads of this image are being failed on request")
    assert world.outage.status() == NetworkStatus()
