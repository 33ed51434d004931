"""The shelf of comparisons: each made once, one at a time, and nobody waits in a crowd."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oscirc_blockstore.errors import BusyError
from oscirc_server.services.comparisons import Shelf

LONG_S = 60.0


@pytest.fixture
def held():
    """Gives a shelf on which a result is being made, until `go_on` is set."""
    shelf, began, go_on = Shelf(patience_s=LONG_S, most_waiting=1), threading.Event(), threading.Event()

    def make():
        began.set()
        assert go_on.wait(LONG_S)
        return "slow"

    with ThreadPoolExecutor(2) as pool:
        try:
            running = pool.submit(shelf.get, "slow", make)
            assert began.wait(LONG_S)
            yield shelf, go_on, pool, running
        finally:
            go_on.set()


def test_who_waits_for_the_same_gets_it_without_making_it_again(held):
    shelf, go_on, pool, running = held
    waiting = pool.submit(shelf.get, "slow", lambda: "made again")
    go_on.set()
    assert (running.result(LONG_S), waiting.result(LONG_S)) == ("slow", "slow")


def test_who_comes_when_as_many_wait_as_may_is_refused_at_once(held):
    shelf, go_on, pool, _running = held
    waiting = pool.submit(shelf.get, "second", lambda: "second")
    while shelf._places._value:  # until the second one waits
        threading.Event().wait(0.001)
    with pytest.raises(BusyError):
        shelf.get("third", lambda: "third")
    go_on.set()
    assert waiting.result(LONG_S) == "second"
    assert shelf.get("third", lambda: "third") == "third"


def test_what_is_on_the_shelf_waits_for_nobody(held):
    shelf, _go_on, _pool, _running = held
    shelf._put("known", "kept")
    assert shelf.get("known", lambda: "made again") == "kept"


def test_patience_ends():
    shelf = Shelf(patience_s=0)
    with shelf._turn, pytest.raises(BusyError):
        shelf.get("other", lambda: "other")
    assert shelf.get("other", lambda: "other") == "other"


def test_one_that_fails_gives_its_place_back():
    shelf = Shelf(most_waiting=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            shelf.get("broken", lambda: 1 // 0)
    assert shelf.get("broken", lambda: "mended") == "mended"


def test_the_oldest_that_nobody_asked_for_goes():
    shelf = Shelf(kept=2)
    for key in ("a", "b", "a", "c"):
        shelf.get(key, key.upper)
    assert shelf.get("a", lambda: "again") == "A"
    assert shelf.get("b", lambda: "again") == "again"
