import os
import time

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY
from oscirc_remote.stream_files import KEPT_S, NOTHING_TOLD, StreamFiles, Told, tag

DIGEST = digest_of(b"a bundle")


@pytest.fixture
def files(tmp_path):
    opened = [StreamFiles(tmp_path, DIGEST) for _ in range(2)]
    yield opened
    for each in opened:
        each.close()


def test_one_streams_and_the_other_is_told(files):
    leader, follower = files
    assert leader.try_lock()
    assert not follower.try_lock()
    told = Told(1000, 12.5, 3, tag(b"index"))
    leader.tell(told)
    assert follower.told() == told


def test_the_next_leader_forgets_what_the_last_one_told(files):
    leader, follower = files
    leader.try_lock()
    leader.tell(Told(1000, 12.5, 3, tag(b"index")))
    leader.close()
    assert follower.try_lock()
    assert follower.told() == NOTHING_TOLD


def test_an_index_is_kept_and_taken_away(files):
    leader, follower = files
    assert (leader.has_index(), leader.index()) == (False, None)
    leader.keep_index(b"an index")
    assert (follower.has_index(), follower.index()) == (True, b"an index")
    follower.drop_index()
    follower.drop_index()
    assert not leader.has_index()


@pytest.mark.parametrize(
    "raw", [b"", b"short", b"\xff" * 32, b"\x00" * 8 + b"\x00\x00\x00\x00\x00\x00\xf0\x7f" + b"\0" * 16]
)
def test_nonsense_in_the_stream_file_is_nothing_told(tmp_path, files, raw):
    (tmp_path / ACCELERATORS_DIRECTORY / f"{DIGEST.hex()}.stream").write_bytes(raw)
    assert files[0].told() == NOTHING_TOLD


def test_what_old_bundles_left_is_swept(tmp_path, files):
    old = tmp_path / ACCELERATORS_DIRECTORY / "old.index"
    old.write_bytes(b"x")
    then = time.time() - KEPT_S - 1
    os.utime(old, (then, then))
    new = old.with_name("new.index")
    new.write_bytes(b"x")
    files[0].keep_index(b"an index")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cache_that_takes_no_files_lets_everybody_stream(tmp_path):
    (tmp_path / ACCELERATORS_DIRECTORY).write_text("in the way")
    for _ in range(2):
        files = StreamFiles(tmp_path, DIGEST)
        assert files.try_lock()
        files.tell(Told(1))
        files.keep_index(b"an index")
        assert files.told() == NOTHING_TOLD
        assert files.index() is None
        files.close()
