"""The search for packs: it ends by itself, whatever it meets, and soon when the image is closed."""

import threading

import pytest

from oscirc_blockstore.accelerators import Listing
from oscirc_blockstore.errors import DocumentRefusedError, UnreachableError
from oscirc_remote.pack_search import PackSearch
from oscirc_remote.packs import Packs
from oscirc_remote.readiness import listing_file

from .fakes import FakeClock
from .test_pack_source import ACCELERATOR, FROM, TO
from .test_packs import world  # noqa: F401


class Found:
    def __init__(self, problem=None):
        self.problem, self.done, self.deadline = problem, threading.Event(), None

    def find(self, deadline):
        self.deadline = deadline
        self.done.set()
        if self.problem:
            raise self.problem


@pytest.mark.parametrize("problem", [None, UnreachableError("down"), ValueError("ours")])
def test_it_begins_at_once_and_no_failure_leaves_it(problem, caplog):
    packs = Found(problem)
    search = PackSearch(packs)
    assert packs.done.wait(10)
    search.close()
    assert not any(thread.name == "oscirc-packs" for thread in threading.enumerate())
    assert ("ended" in caplog.text) == isinstance(problem, ValueError)


def test_closing_calls_it_off():
    class Waiting(Found):
        def find(self, deadline):
            deadline.wait(self.done)
            deadline.check("the listing")

    search = PackSearch(Waiting())
    search.close()
    assert not any(thread.name == "oscirc-packs" for thread in threading.enumerate())


def searched(world, served):  # noqa: F811
    def get(path, limit_bytes, deadline, judged):
        assert TO.digest.hex() in path
        return None if served is None else judged(served.serialise())

    world.mirror.get = get
    packs = Packs(TO.digest, TO.manifest, world.source, world.mirror, world.cache, (FROM.digest,))
    packs.find(FakeClock().deadline())
    return listing_file(world.cache, TO.digest).exists()


def test_what_is_listed_is_used_and_the_listing_kept(world):  # noqa: F811
    assert searched(world, Listing(TO.digest, (ACCELERATOR,)))
    assert world.source.uses(ACCELERATOR)


def test_where_nothing_is_listed_nothing_is_used(world):  # noqa: F811
    assert not searched(world, None)
    assert world.counts("packs") == (0,)


def test_a_listing_of_another_disk_is_refused(world):  # noqa: F811
    with pytest.raises(DocumentRefusedError):
        searched(world, Listing(FROM.digest, (ACCELERATOR,)))
    assert not world.source.uses(ACCELERATOR)
