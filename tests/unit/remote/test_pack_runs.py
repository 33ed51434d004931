"""Records that follow one another come in one request; nobody waits for a request that failed."""

import threading

import pytest

from oscirc_blockstore import delta
from oscirc_blockstore.delta import MadeRecord, Run, Source
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import UnreachableError
from oscirc_remote import pack_runs
from oscirc_remote.bundle_mirrors import Part
from oscirc_remote.deadlines import Deadline
from oscirc_remote.pack_runs import PackRuns

BLOCK = 65536
FRAMES = [bytes([n]) * (100 + n) for n in range(8)]
DIGESTS = [digest_of(frame) for frame in FRAMES]
RUNS = (Run(Source.LITERAL, 0, BLOCK // delta.PAGE_SIZE),)
INDEX = delta.build_index(
    digest_of(b"new"),
    digest_of(b"old"),
    BLOCK,
    [MadeRecord(digest, 999, len(frame), RUNS) for digest, frame in zip(DIGESTS, FRAMES, strict=True)],
    [],
)
RECORDS = tuple(delta.parse_index(INDEX).records.values())
FILE = INDEX + b"".join(FRAMES)


class World:
    def __init__(self, wanted=lambda _record: True):
        self.asked, self.before, self.mirror = [], lambda: None, "one"
        self.runs = PackRuns(RECORDS, wanted, self.fetch)

    def fetch(self, start, stop, deadline):
        self.asked.append((start, stop))
        self.before()
        return Part(FILE[start:stop], self.mirror)

    def frame(self, number):
        assert self.runs.frame(RECORDS[number], Deadline.after(10)).raw == FRAMES[number]


def test_records_that_follow_one_another_come_in_one_request():
    world = World()
    for number in range(8):
        world.frame(number)
    assert world.asked == [(len(INDEX), len(FILE))]


def test_those_before_it_come_along_whichever_thread_is_the_first():
    world = World()
    for number in (5, 0, 7, 3):
        world.frame(number)
    assert world.asked == [(len(INDEX), len(FILE))]


def test_what_was_given_out_does_not_come_again_with_a_run_behind_it(monkeypatch):
    monkeypatch.setattr(pack_runs, "RUN_BYTES", 220)
    world = World()
    for number in (0, 1, 2, 3):
        world.frame(number)
    assert world.asked == [
        (RECORDS[0].offset, RECORDS[2].offset),
        (RECORDS[2].offset, RECORDS[4].offset),
    ]


def test_a_run_ends_at_what_is_not_wanted_and_at_its_limit(monkeypatch):
    world = World(lambda record: record is not RECORDS[2])
    world.frame(0)
    assert world.asked == [(RECORDS[0].offset, RECORDS[2].offset)]
    monkeypatch.setattr(pack_runs, "RUN_BYTES", 220)
    world.frame(3)
    assert world.asked[1:] == [(RECORDS[3].offset, RECORDS[5].offset)]


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(pack_runs, "HELD_BYTES", 220)
    world = World()
    for number in (0, 1):
        world.frame(number)
    assert len(world.asked) == 2


def test_what_a_mirror_sent_is_forgotten_on_request():
    world = World()
    world.frame(0)
    world.runs.forget("another")
    world.frame(1)
    world.runs.forget("one")
    world.frame(2)
    assert world.asked == [(len(INDEX), len(FILE)), (RECORDS[2].offset, len(FILE))]


def test_who_comes_meanwhile_waits_for_the_request_that_is_under_way():
    world = World()
    began, go = threading.Event(), threading.Event()

    def before():
        began.set()
        assert go.wait(10)

    world.before = before
    threads = [threading.Thread(target=world.frame, args=(number,)) for number in (0, 3)]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(world.asked) == 1


def test_a_request_that_fails_fails_for_one():
    world = World()
    began, go = threading.Event(), threading.Event()

    def failing():
        began.set()
        assert go.wait(10)
        world.before = lambda: None
        raise UnreachableError("broke off")

    world.before = failing
    failed = []

    def first():
        try:
            world.frame(0)
        except UnreachableError as error:
            failed.append(error)

    threads = [threading.Thread(target=first), threading.Thread(target=world.frame, args=(1,))]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(failed) == 1
    assert len(world.asked) == 2


def test_who_waits_does_so_until_its_own_deadline():
    world = World()
    began, go = threading.Event(), threading.Event()

    def before():
        began.set()
        assert go.wait(10)

    world.before = before
    thread = threading.Thread(target=world.frame, args=(0,))
    thread.start()
    assert began.wait(10)
    with pytest.raises(Exception, match="delta pack"):
        world.runs.frame(RECORDS[1], Deadline.after(0.01))
    go.set()
    thread.join(10)
