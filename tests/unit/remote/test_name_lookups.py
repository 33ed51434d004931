"""Names are waited for in a bounded time, by a resolver that has none: scripted, no network."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oscirc_remote.name_lookups import NameLookups

FOREVER = 20


class Resolver:
    """Hangs on names that begin with `slow` until it is let go; remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.go_on = threading.Event()
        self.asked_for = threading.Event()

    def __call__(self, host, port):
        self.asked.append((host, port))
        self.asked_for.set()
        if host.startswith("slow"):
            assert self.go_on.wait(FOREVER)
        return (f"address of {host}",)


@pytest.fixture
def resolver():
    resolver = Resolver()
    yield resolver
    resolver.go_on.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
def test_an_address_is_its_own(resolver, host):
    assert NameLookups(resolver).addresses(host, 80, FOREVER) == (host,)
    assert resolver.asked == []


def test_a_name_is_asked_for_each_time(resolver):
    lookups = NameLookups(resolver)
    for _ in range(2):
        assert lookups.addresses("a.example", 80, FOREVER) == ("address of a.example",)
    assert resolver.asked == [("a.example", 80)] * 2


def test_one_that_takes_too_long_is_left_behind_and_others_are_found_meanwhile(resolver):
    lookups = NameLookups(resolver)
    with pytest.raises(TimeoutError):
        lookups.addresses("slow.example", 80, 0.01)
    assert lookups.addresses("a.example", 80, FOREVER) == ("address of a.example",)
    resolver.go_on.set()
    lookups.settle(FOREVER)
    assert lookups.addresses("slow.example", 80, FOREVER) == ("address of slow.example",)


def test_who_asks_for_the_same_name_waits_for_the_same_lookup(resolver):
    lookups = NameLookups(resolver)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(lookups.addresses, "slow.example", 80, FOREVER)
        assert resolver.asked_for.wait(FOREVER)
        with pytest.raises(TimeoutError):
            lookups.addresses("slow.example", 80, 0.01)
        resolver.go_on.set()
        assert first.result(FOREVER) == ("address of slow.example",)
    assert resolver.asked == [("slow.example", 80)]


def test_lookups_that_hang_are_bounded(resolver):
    lookups = NameLookups(resolver, at_once=2)
    for name in ("slow1", "slow2"):
        with pytest.raises(TimeoutError):
            lookups.addresses(name, 80, 0.01)
    with pytest.raises(TimeoutError, match="too many"):
        lookups.addresses("a.example", 80, FOREVER)
    assert [name for name, _ in resolver.asked] == ["slow1", "slow2"]


@pytest.mark.parametrize("problem", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
def test_what_the_resolver_says_is_raised_where_it_is_waited_for(problem):
    def refuses(_host, _port):
        raise problem

    with pytest.raises(type(problem)) as raised:
        NameLookups(refuses).addresses("a.example", 80, FOREVER)
    assert raised.value is problem


def own_threads():
    return {thread for thread in threading.enumerate() if thread.name == "oscirc-name"}


def test_no_thread_is_left_when_a_name_was_found_or_not(resolver):
    before = own_threads()
    lookups = NameLookups(resolver)
    lookups.addresses("a.example", 80, FOREVER)
    assert not own_threads() - before
    with pytest.raises(TimeoutError):
        lookups.addresses("slow.example", 80, 0.01)
    assert len(own_threads() - before) == 1
    resolver.go_on.set()
    lookups.settle(FOREVER)
    assert not own_threads() - before
