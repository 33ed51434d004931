import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oscirc_remote.deadlines import Deadline
from oscirc_remote.flight_locks import FlightLocks

from .fakes import FakeClock

DIGEST = bytes(range(32))
NEIGHBOUR = bytes([*range(6), 77, *range(25)])
HOLDER = """
import sys
from pathlib import Path
from oscirc_remote.deadlines import Deadline
from oscirc_remote.flight_locks import FlightLocks
with FlightLocks(Path(sys.argv[1])).holding(bytes.fromhex(sys.argv[2]), Deadline.after(60), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Starts another process that holds a digest's byte."""
    holders = []

    def start(digest):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "flights.lock"), digest.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


class Waits:
    """Notes that a byte was found taken."""

    def __init__(self):
        self.noted = threading.Event()

    def __call__(self):
        assert not self.noted.is_set()
        self.noted.set()


def test_another_process_is_waited_for(tmp_path, hold):
    holder = hold(DIGEST)
    locks, waits, taken = FlightLocks(tmp_path / "flights.lock"), Waits(), threading.Event()

    def take():
        with locks.holding(DIGEST, Deadline.after(60), waits):
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert waits.noted.wait(20)
    with locks.holding(NEIGHBOUR, Deadline.after(60), pytest.fail):  # another byte is free
        assert not taken.is_set()
    holder.communicate("")  # lets go
    assert taken.wait(20)
    thread.join()
    locks.close()


def test_a_holder_that_dies_lets_go(tmp_path, hold):
    holder = hold(DIGEST)
    holder.kill()
    holder.wait()
    locks = FlightLocks(tmp_path / "flights.lock")
    with locks.holding(DIGEST, Deadline.after(60), pytest.fail):
        pass
    locks.close()


def test_a_holder_that_is_stuck_is_waited_for_half_of_the_time(tmp_path, hold):
    hold(DIGEST)
    locks, waits, deadline = FlightLocks(tmp_path / "flights.lock"), Waits(), FakeClock().deadline(10)
    with locks.holding(DIGEST, deadline, waits):
        assert waits.noted.is_set()
        assert 0 < deadline.remaining_s() <= 5
    locks.close()


def test_a_lock_file_that_cannot_be_is_gone_without(tmp_path):
    locks = FlightLocks(tmp_path / "missing" / "flights.lock")
    with locks.holding(DIGEST, Deadline.after(60), pytest.fail):
        pass
    locks.close()


def test_closing_waits_for_the_last_holder_before_the_file_is_closed(tmp_path):
    path = tmp_path / "flights.lock"
    locks = FlightLocks(path)

    def is_open():
        return any(os.path.realpath(link) == str(path.resolve()) for link in Path("/proc/self/fd").iterdir())

    with locks.holding(DIGEST, Deadline.after(60), pytest.fail):
        locks.close()
        assert is_open()
    assert not is_open()
    with locks.holding(DIGEST, Deadline.after(60), pytest.fail):
        pass
