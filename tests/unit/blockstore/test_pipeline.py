import contextlib
import threading
from concurrent.futures import CancelledError

import pytest

from oscirc_blockstore.pipeline import in_order


def test_results_come_in_the_order_of_the_items():
    gates = [threading.Event() for _ in range(4)]

    def work(number):
        if number < 3:
            assert gates[number + 1].wait(10)  # each waits for the next: they finish backwards
        gates[number].set()
        return number * 10

    assert list(in_order(work, range(4), workers=4, stop=threading.Event())) == [0, 10, 20, 30]


def test_what_is_taken_and_not_given_back_is_bounded():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    stop = threading.Event()
    results = in_order(lambda number: number, items(), workers=2, stop=stop)
    with contextlib.closing(results):
        for given, _ in enumerate(results, 1):
            assert len(taken) - given <= 6
    assert not stop.is_set()


def test_never_more_than_the_workers_run_at_once():
    running = threading.Semaphore(3)
    exceeded = []

    def work(_):
        if not running.acquire(blocking=False):
            exceeded.append(True)
            return
        running.release()

    list(in_order(work, range(200), workers=3, stop=threading.Event()))
    assert exceeded == []


def test_a_failure_is_raised_at_once_and_stops_the_others():
    stop = threading.Event()
    release = threading.Event()

    def work(number):
        if number == 0:
            assert stop.wait(10)  # long-running, and looks at `stop`
            release.set()
            raise RuntimeError("stopped")
        raise ValueError("the first failure")

    with pytest.raises(ValueError, match="the first failure"):
        list(in_order(work, range(10), workers=2, stop=stop))
    assert release.wait(10)


def workers():
    return {thread for thread in threading.enumerate() if thread.name.startswith("worker-")}


def test_leaving_early_stops_the_workers():
    stop = threading.Event()
    before = workers()
    with contextlib.closing(in_order(lambda number: number, iter(range(1000)), workers=3, stop=stop)) as results:
        assert next(results) == 0
    assert stop.is_set()
    assert not workers() - before


def test_an_error_of_the_items_stops_the_workers():
    def items():
        yield 1
        raise OSError("unreadable")

    stop = threading.Event()
    with pytest.raises(OSError, match="unreadable"):
        list(in_order(lambda number: number, items(), workers=2, stop=stop))
    assert stop.is_set()


def test_a_stop_from_outside_ends_it():
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        list(in_order(lambda number: number, range(3), workers=2, stop=stop))


def test_a_thread_that_hangs_does_not_keep_the_caller(monkeypatch):
    monkeypatch.setattr("oscirc_blockstore.pipeline._GRACE_S", 0.05)
    hanging = threading.Event()
    never = threading.Event()

    def work(number):
        if number == 0:
            hanging.set()
            never.wait()
        assert hanging.wait(10)
        raise ValueError("failed")

    def items():
        yield 0
        yield 1
        assert hanging.wait(10)
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        list(in_order(work, items(), workers=2, stop=threading.Event()))
    never.set()


def test_no_items_is_no_result():
    assert list(in_order(lambda number: number, [], workers=2, stop=threading.Event())) == []
