import threading

import pytest

from oscirc_blockstore.errors import DeadlineExceededError
from oscirc_remote.deadlines import Cancellation, Deadline

from .fakes import FakeClock


def test_time_left_shrinks_and_ends_at_zero():
    clock = FakeClock()
    deadline = clock.deadline(10)
    clock.now += 4
    assert deadline.remaining_s() == 6
    clock.now += 7
    assert deadline.remaining_s() == 0
    with pytest.raises(DeadlineExceededError, match="a read: no answer in the time given"):
        deadline.check("a read")


def test_a_share_never_outlasts_the_whole():
    deadline = FakeClock().deadline(10)
    assert deadline.at_most(2).remaining_s() == 2
    assert deadline.at_most(60).remaining_s() == 10


def test_a_pause_ends_with_the_deadline():
    clock = FakeClock()
    deadline = clock.deadline(3)
    deadline.pause(1)
    deadline.pause(60)
    assert clock.waits == [1, 2]


def test_cancellation_leaves_no_time_and_says_why():
    cancellation = Cancellation()
    deadline = Deadline.after(60, cancellation)
    cancellation.cancel("QEMU is stopping")
    cancellation.cancel("later reasons do not count")
    assert deadline.remaining_s() == 0
    with pytest.raises(DeadlineExceededError, match="QEMU is stopping"):
        deadline.check("a read")


def test_cancellation_wakes_those_who_wait_and_those_who_come_late():
    cancellation = Cancellation()
    deadline = Deadline.after(60, cancellation)
    waiting, woken = threading.Event(), threading.Event()

    class Announcing(threading.Event):
        def wait(self, timeout=None):
            waiting.set()
            return super().wait(timeout)

    def wait():
        deadline.wait(Announcing())
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(20)
    cancellation.cancel("stop")
    assert woken.wait(20)
    thread.join()
    deadline.wait(threading.Event())  # returns at once
    deadline.pause(60)
