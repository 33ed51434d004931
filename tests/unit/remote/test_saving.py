import threading

from oscirc_remote.saving import QUEUED, Saver


def test_jobs_run_in_order_and_closing_waits_for_them():
    saver, done = Saver(), []
    for number in range(3 * QUEUED):
        saver.put(lambda number=number: done.append(number))
    saver.close()
    assert done == list(range(3 * QUEUED))


def test_a_job_that_fails_does_not_stop_the_next(caplog):
    saver, done = Saver(), []
    saver.put(lambda: 1 / 0)
    saver.put(lambda: done.append(1))
    saver.close()
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text


def savers():
    return {thread for thread in threading.enumerate() if thread.name == "oscirc-saver"}


def test_an_unused_one_has_no_thread():
    before = savers()
    Saver().close()
    assert not savers() - before
    busy = Saver()
    busy.put(lambda: None)
    assert len(savers() - before) == 1
    busy.close()
    assert not savers() - before


def test_where_there_is_no_thread_the_caller_does_it(monkeypatch):
    def none_left(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    saver, done = Saver(), []
    saver.put(lambda: 1 / 0)
    saver.put(lambda: done.append(1))
    assert done == [1]
    saver.close()
