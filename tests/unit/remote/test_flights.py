import threading

import pytest

from oscirc_blockstore.errors import BusyError, DeadlineExceededError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.flights import FlightTable

DIGEST = bytes(range(32))


class Gated:
    """What a flight does: waits for the gate, then gives bytes or raises."""

    def __init__(self):
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.calls = 0
        self.error = None

    def __call__(self, digest, raw_size, deadline, urgency):
        self.calls += 1
        self.started.release()
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        return b"raw"


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def table(gated):
    table = FlightTable(gated, 4)
    yield table
    gated.gate.set()
    table.close()


def test_callers_of_one_block_share_one_flight(table, gated):
    flights = [table.join(DIGEST, 3, Deadline.after(20)) for _ in range(16)]
    gated.gate.set()
    assert [flight.wait(Deadline.after(20)) for flight in flights] == [b"raw"] * 16
    assert gated.calls == 1


def test_a_flight_that_landed_is_not_joined_again(table, gated):
    gated.gate.set()
    table.join(DIGEST, 3, Deadline.after(20)).wait(Deadline.after(20))
    table.join(DIGEST, 3, Deadline.after(20)).wait(Deadline.after(20))
    assert gated.calls == 2


def test_every_waiter_sees_the_error(table, gated):
    gated.error = OSError("unexpected")
    flights = [table.join(DIGEST, 3, Deadline.after(20)) for _ in range(2)]
    gated.gate.set()
    for flight in flights:
        with pytest.raises(OSError, match="unexpected"):
            flight.wait(Deadline.after(20))


def test_a_waiter_leaves_at_its_own_deadline_and_the_flight_goes_on(table, gated):
    flight = table.join(DIGEST, 3, Deadline.after(20))
    with pytest.raises(DeadlineExceededError):
        flight.wait(Deadline.after(0.01))
    gated.gate.set()
    assert flight.wait(Deadline.after(20)) == b"raw"


def test_a_waiter_is_called_off_at_once(table, gated):
    cancellation = Cancellation()
    flight = table.join(DIGEST, 3, Deadline.after(20))
    failed = threading.Event()

    def wait():
        try:
            flight.wait(Deadline.after(300, cancellation))
        except DeadlineExceededError:
            failed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    cancellation.cancel("reads are being failed")
    assert failed.wait(20)
    thread.join()


def test_a_closed_table_starts_nothing(table):
    table.close()
    with pytest.raises(BusyError):
        table.join(DIGEST, 3, Deadline.after(20))
