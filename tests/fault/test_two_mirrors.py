"""A boot that is replayed through `oscirc mount` from two mirrors, the preferred of which fails in every way.

No read takes longer than two seconds, by the driver's own count and by the reader's clock; every byte is right; `status`
says whose fault it was. With the boot's bundle, and (`--no-prefetch`) with a request for each block.
"""

import json
import shutil
import time

import pytest
from support.commands import serving
from support.fault_server import FaultServer, every, flip_bit, stall, status, truncate
from support.links import far_mirror
from support.replaying import Replay

from .conftest import BLOCK, Published, content

WORST_S = 2.0
PLACES = {"bundle": (), "blocks": ("--no-prefetch",)}


@pytest.fixture
def mirrors(recorded):
    with (
        far_mirror(recorded.repository.tree, megabits=60) as first,
        far_mirror(recorded.repository.tree, megabits=60) as second,
    ):
        yield first, second


@pytest.fixture
def replay(recorded, mirrors, reader, tmp_path):
    """Mounts from both mirrors and replays the boot, calling `think` before each read; returns the mount's facts."""
    first, second = mirrors
    place = tmp_path / "mnt"
    place.mkdir()

    def run(options, think=lambda _done: None, before=lambda: None):
        reader.run("remote", "add", "m", f"{first.url}#{recorded.pin}")
        reader.run("remote", "mirrors", "m", "--add", second.url)
        before()
        reader.run("mount", "m:alice/tiny", place, *options)
        positions = recorded.boot if not options else recorded.boot[:120]
        done = Replay(place / "disk.raw", recorded.disk, BLOCK).run(positions, think)
        assert not done.failed
        assert not done.wrong
        facts = reader.json("status", place)
        assert facts["failed_reads"] == 0
        assert done.worst_s < WORST_S
        assert facts["worst_stall_ms"] < 1000 * (WORST_S + done.kept_waiting_s)
        return facts

    return run


def standing(facts, mirror):
    (found,) = (each for each in facts["mirrors"] if each["name"] == mirror.url)
    return found


def is_left(facts, first, second):
    """The second brought the rest, and the figures say why."""
    one, other = standing(facts, first), standing(facts, second)
    assert second.link.tell().bytes_down > 2_000_000
    return one["failures"] + one["missing"] + other["hedge_wins"] > 0


def stops_answering(mirror):
    mirror.link.tell("cut")


def is_killed(mirror):
    mirror.server.close()
    mirror.link.tell("kill")


LONGER = pytest.mark.vm  # beside what tests/integration/test_remote_mirrors.py shows every day
DEATHS = [
    ("bundle", stops_answering),
    pytest.param("blocks", is_killed, marks=LONGER),
    pytest.param("bundle", is_killed, marks=LONGER),
    pytest.param("blocks", stops_answering, marks=LONGER),
]


@pytest.mark.parametrize(("place", "way"), DEATHS)
def test_a_mirror_that_dies_in_mid_boot_stalls_no_read_for_more_than_two_seconds(replay, mirrors, place, way):
    first, second = mirrors

    def die(done):
        if done == 40:
            way(first)

    facts = replay(PLACES[place], die)
    assert is_left(facts, first, second)


@pytest.mark.parametrize("place", ["bundle", pytest.param("blocks", marks=LONGER)])
def test_a_mirror_that_flips_a_bit_in_every_tenth_block_is_passed_over_and_named(
    replay, mirrors, reader, recorded, place
):
    first, second = mirrors
    path, length = recorded.bundle

    def flip_in_bundle(answer):
        body = bytearray(answer.body)
        start, _ = answer.request.wanted(length)
        for at in range(10 * BLOCK, length, 10 * BLOCK):
            if 0 <= at - start < len(body):
                body[at - start] ^= 1
        answer.body = bytes(body)

    def lie():
        first.server.inject("blocks/*", every(10, flip_bit()))
        first.server.inject(path, flip_in_bundle)

    facts = replay(PLACES[place], before=lie)
    assert standing(facts, first)["lied"]
    assert standing(facts, first)["bad_blocks"] > 0
    assert not standing(facts, second)["lied"]
    words = reader.run("status", facts["mountpoint"])
    assert f"WRONG BYTES were served by {first.url}; none of them was used" in words
    (line,) = (line for line in reader.run("remote", "mirrors", "m").splitlines() if line.startswith(first.url))
    assert "LIED" in line


FAULTS = {
    "is busy": status(503, Retry_After="3600"),
    "lacks everything": status(404),
    "breaks off": truncate(30_000),
    "stalls in the middle": stall(after_bytes=30_000),
    "never answers": stall(),
}


@LONGER
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_mirror_that_fails_from_some_block_on_stalls_no_read_for_more_than_two_seconds(replay, mirrors, place, fault):
    first, second = mirrors

    def fail(done):
        if done == 20:
            first.server.inject("blocks/*", FAULTS[fault])
            first.server.inject("accel/*", FAULTS[fault])
            first.link.tell("kill")  # what is under way is asked for anew

    assert is_left(replay(PLACES[place], fail), first, second)


@LONGER
def test_a_mirror_that_comes_back_is_used_again(replay, mirrors, reader, tmp_path):
    first, second = mirrors
    served = []

    def come_and_go(done):
        if done == 20:
            is_killed(first)
        if done == 60:
            assert second.link.tell().bytes_down > 30 * BLOCK
            first.server.start()
            deadline = time.monotonic() + 60
            while standing(reader.json("status", tmp_path / "mnt"), first)["demoted_for_s"]:
                assert time.monotonic() < deadline
            served.append(standing(reader.json("status", tmp_path / "mnt"), first)["served"])

    facts = replay(("--no-prefetch",), come_and_go)
    one = standing(facts, first)
    assert not one["demoted"]
    assert one["failures"] > 0
    assert one["served"] > served[0]


def test_a_mirror_whose_timestamp_is_older_is_passed_over_while_another_is_not(reader, tmp_path):
    publisher = Published(tmp_path, 8)
    old = tmp_path / "old"
    shutil.copytree(publisher.repository.tree, old)
    changed = content("two", 8)
    (tmp_path / "disk.raw").write_bytes(changed)
    with serving(publisher.publisher, publisher.repository):
        options = ("--key", "alice", "--block-size", BLOCK)
        publisher.publisher.run("publish", tmp_path / "disk.raw", "test:alice/tiny@2", *options)
    with FaultServer(publisher.repository.tree) as first, FaultServer(publisher.repository.tree) as second:
        reader.run("remote", "add", "m", f"{first.url}#{publisher.pin}")
        reader.run("remote", "mirrors", "m", "--add", second.url)
        assert reader.json("show", "m:alice/tiny")["version"] == "2"
        first.serve(old)
        shown = reader.attempt("show", "m:alice/tiny", "--json")
        assert (shown.returncode, json.loads(shown.stdout)["version"]) == (0, "2")
        place = tmp_path / "mnt"
        place.mkdir()
        mounted = reader.attempt("mount", "m:alice/tiny", place)
        assert mounted.returncode == 0
        assert f"passed over: {first.url}" in mounted.stderr
        assert (place / "disk.raw").read_bytes() == changed
        second.serve(old)
        assert "after" in reader.refused("show", "m:alice/tiny", code=4)  # all are behind: that is a rollback
