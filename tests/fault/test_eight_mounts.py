"""Eight `oscirc` processes boot the same image at once, with one cache: one download of everything, whoever dies."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.links import far_mirror
from support.replaying import Replay

from .conftest import BLOCK

MOUNTS = 8
IMAGE = "m:alice/tiny"
HALF_A_SEGMENT = 4 << 20
ON_THE_WAY = 2 << 20  # in sockets and in the link, when a process dies


@pytest.fixture
def mount_eight(recorded, reader, tmp_path):
    """Makes eight mounts at once, of what is behind a link."""

    def mount(mirror):
        reader.run("remote", "add", "m", f"{mirror.url}#{recorded.pin}")
        places = [tmp_path / f"mnt{number}" for number in range(MOUNTS)]
        for place in places:
            place.mkdir()
        mirror.link.tell("reset")
        with ThreadPoolExecutor(MOUNTS) as pool:
            for done in pool.map(lambda place: reader.attempt("mount", IMAGE, place), places):
                assert done.returncode == 0, done.stderr
        return places

    return mount


def facts_of(reader):
    return {mount["mountpoint"]: mount for mount in reader.json("status")["mounts"]}


def replay(recorded, places, positions, think=lambda _done: None):
    """The same reads through each mount at once; `think` is called by the first of them only."""
    with ThreadPoolExecutor(MOUNTS) as pool:
        replays = [Replay(place / "disk.raw", recorded.disk, BLOCK) for place in places]
        jobs = [
            pool.submit(each.run, positions, think if each is replays[0] else lambda _done: None) for each in replays
        ]
        for job in jobs:
            job.result()
    assert not [(each.disk, each.wrong, each.failed) for each in replays if each.wrong or each.failed]
    return max(each.worst_s for each in replays)


def times_asked(mirror):
    return {path: n for path, n in mirror.server.counts().items() if path.startswith("blocks/")}


def test_eight_mounts_share_one_download_of_each_block_and_of_the_bundle(recorded, reader, mount_eight):
    path, length = recorded.bundle
    with far_mirror(recorded.repository.tree, megabits=40) as mirror:
        places = mount_eight(mirror)
        replay(recorded, places, recorded.boot)
        assert mirror.server.asked_of(path) == [(0, length)]

        rest = sorted(set(range(288)) - set(recorded.boot))
        replay(recorded, places, rest)
        assert sorted(times_asked(mirror).values()) == [1] * len(rest)  # nothing that the bundle brought
        facts = facts_of(reader).values()
        assert sum(fact["prefetch"]["blocks"] for fact in facts) == len(recorded.boot)
        assert sum(fact["fetched_blocks"] for fact in facts) == len(rest)
        assert sum(fact["failed_reads"] for fact in facts) == 0
        assert mirror.link.tell().bytes_down < 1.02 * 288 * BLOCK


def test_when_the_one_that_streams_is_killed_another_goes_on_and_nothing_is_fetched_twice(
    recorded, reader, mount_eight
):
    path, length = recorded.bundle
    with far_mirror(recorded.repository.tree, megabits=2) as mirror:  # it streams for a minute: until all are asked
        places = mount_eight(mirror)
        found = facts_of(reader)
        (streaming,) = (place for place in places if found[str(place)]["prefetch"]["state"] == "streaming")
        assert [fact["prefetch"]["state"] for fact in found.values()].count("following") == MOUNTS - 1

        mirror.link.tell("rate 16e6")

        def kill(done):
            if done == 8:
                os.kill(found[str(streaming)]["pid"], signal.SIGKILL)

        worst_s = replay(recorded, [place for place in places if place != streaming], recorded.boot, kill)
        assert worst_s < 2.0
        assert len(mirror.server.asked_of(path)) == 2  # by the one that was killed, and by one of the others
        singly = times_asked(mirror)  # what a guest waited for before the stream had come back to where it was
        assert set(singly.values()) <= {1}
        wasted = HALF_A_SEGMENT + ON_THE_WAY + 1.01 * len(singly) * BLOCK
        assert mirror.link.tell().bytes_down < length + wasted
