import threading

import pytest

from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.departures import MOST_QUEUED, QUIET_S
from oscirc_remote.flights import FlightTable
from oscirc_remote.sources import Urgency

from .fakes import FakeClock

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


def digests(count):
    return [number.to_bytes(32, "big") for number in range(count)]


def ahead(table, digest):
    return table.join(digest, 3, Deadline.after(20), Urgency.AHEAD)


def test_a_flight_says_how_urgent_it_was_when_it_started(gated):
    told = []
    table = FlightTable(lambda digest, size, deadline, urgency: told.append(urgency) or b"raw", 4)
    for urgency in Urgency:
        flight = table.join(bytes([urgency] * 32), 3, Deadline.after(20), urgency)
        flight.wait(Deadline.after(20))
        assert flight.urgency is urgency
    assert told == list(Urgency)
    table.close()


def test_a_read_starts_at_once_beside_a_full_window(gated):
    table = FlightTable(gated, 4, window=lambda: 2)
    flights = [ahead(table, digest) for digest in digests(10)]
    for _ in range(2):
        assert gated.started.acquire(timeout=20)
    assert not gated.started.acquire(blocking=False)
    table.join(DIGEST, 3, Deadline.after(20))
    assert gated.started.acquire(timeout=20)
    table.join(digests(10)[9], 3, Deadline.after(20))  # it waited; a read wants it now
    assert gated.started.acquire(timeout=20)
    assert flights[9].urgency is Urgency.DEMAND
    assert gated.calls == 4
    gated.gate.set()
    assert [flight.wait(Deadline.after(20)) for flight in flights] == [b"raw"] * 10
    assert gated.calls == 11
    table.close()


def test_a_flight_that_a_read_takes_over_keeps_the_later_deadline(gated):
    table = FlightTable(gated, 4, window=lambda: 1)
    ahead(table, digests(2)[0])
    flight = table.join(digests(2)[1], 3, Deadline.after(1), Urgency.AHEAD)
    later = Deadline.after(20)
    assert table.join(digests(2)[1], 3, later) is flight
    assert flight.deadline is later
    gated.gate.set()
    table.close()


def test_too_many_guesses_push_out_the_oldest(gated):
    table = FlightTable(gated, 4, window=lambda: 1)
    flights = [ahead(table, digest) for digest in digests(MOST_QUEUED + 2)]
    with pytest.raises(DeadlineExceededError):
        flights[1].wait(Deadline.after(20))
    assert table.dropped == 1
    gated.gate.set()
    assert flights[2].wait(Deadline.after(20)) == b"raw"
    table.close()


class GatedClock(FakeClock):
    """Lets a wait of the table begin, and end when the test says so."""

    def __init__(self):
        super().__init__()
        self.waiting = threading.Event()
        self.go_on = threading.Event()

    def wait(self, event, timeout_s):
        self.waiting.set()
        assert self.go_on.wait(20)
        return super().wait(event, timeout_s)


def test_filling_starts_by_itself_when_it_has_been_quiet_for_long_enough(gated):
    clock = GatedClock()
    table = FlightTable(gated, 4, clock=clock)
    gated.gate.set()
    table.join(DIGEST, 3, Deadline.after(20)).wait(Deadline.after(20))
    assert gated.started.acquire(timeout=20)
    filling = table.join(digests(1)[0], 3, Deadline.after(20), Urgency.FILL)
    assert clock.waiting.wait(20)
    assert not gated.started.acquire(blocking=False)
    clock.go_on.set()
    assert filling.wait(Deadline.after(20)) == b"raw"
    assert clock.waits == [QUIET_S]
    table.close()


def test_closing_gives_up_what_waits(gated):
    table = FlightTable(gated, 4, window=lambda: 1)
    flights = [ahead(table, digest) for digest in digests(3)]
    table.close()
    with pytest.raises(BusyError):
        flights[2].wait(Deadline.after(20))
    gated.gate.set()
    assert flights[0].wait(Deadline.after(20)) == b"raw"


def test_without_a_thread_to_fly_with_the_waiter_is_told(gated, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    table = FlightTable(gated, 4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LocalError, match="thread"):
        table.join(DIGEST, 3, Deadline.after(20)).wait(Deadline.after(20))
    monkeypatch.undo()
    gated.gate.set()
    assert table.join(DIGEST, 3, Deadline.after(20)).wait(Deadline.after(20)) == b"raw"
    table.close()
