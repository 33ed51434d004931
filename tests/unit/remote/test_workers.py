import threading

import pytest

from oscirc_remote.workers import Workers


class Tasks:
    """Tasks that note their thread and end when told to."""

    def __init__(self):
        self.gate = threading.Event()
        self.ran = threading.Semaphore(0)
        self.threads = []

    def __call__(self):
        self.threads.append(threading.current_thread())
        self.ran.release()
        assert self.gate.wait(20)


@pytest.fixture
def tasks():
    tasks = Tasks()
    yield tasks
    tasks.gate.set()


def test_tasks_run_beside_each_other_up_to_the_limit(tasks):
    workers = Workers("test", 3)
    for _ in range(5):
        workers.run(tasks)
    for _ in range(3):
        assert tasks.ran.acquire(timeout=20)
    assert workers.alive == 3
    assert not tasks.ran.acquire(blocking=False)
    tasks.gate.set()
    for _ in range(2):
        assert tasks.ran.acquire(timeout=20)
    workers.close()


def test_an_idle_thread_is_used_again(tasks):
    workers = Workers("test", 8)
    tasks.gate.set()
    for _ in range(20):
        workers.run(tasks)
        assert tasks.ran.acquire(timeout=20)
        while workers._idle < workers.alive:  # until it has come back
            pass
    assert workers.alive == 1
    workers.close()


def test_threads_end_when_there_is_nothing_to_do(tasks):
    workers = Workers("test", 8, idle_s=0.001)
    for _ in range(4):
        workers.run(tasks)
    for _ in range(4):
        assert tasks.ran.acquire(timeout=20)
    tasks.gate.set()
    for thread in tasks.threads:
        thread.join(20)
    assert workers.alive == 0
    workers.run(tasks)
    assert tasks.ran.acquire(timeout=20)


def test_closing_ends_idle_threads_and_finishes_what_is_queued(tasks):
    workers = Workers("test", 1)
    workers.run(tasks)
    workers.run(tasks)
    workers.close()
    tasks.gate.set()
    for _ in range(2):
        assert tasks.ran.acquire(timeout=20)
    tasks.threads[0].join(20)
    assert workers.alive == 0


def test_without_any_thread_the_caller_is_told(tasks, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        Workers("test", 2).run(tasks)
