import threading

import pytest

from oscirc_remote.counters import Counters


def test_totals_from_many_threads_add_up():
    counters = Counters("bytes", "requests")

    def count():
        for _ in range(1000):
            counters.add("bytes", 3)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot() == {"bytes": 24_000, "requests": 0}
    assert counters["bytes"] == 24_000


def test_a_name_that_was_not_announced_is_a_mistake():
    with pytest.raises(KeyError):
        Counters("bytes").add("byets")
