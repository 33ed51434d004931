import subprocess
import sys

import pytest

from oscirc_remote import uses

from .fakes import BLOCK_SIZE, block, make_image


def manifest(number):
    return make_image({0: block(number)}, BLOCK_SIZE)[0]


def test_an_image_is_used_as_long_as_somebody_holds_it(tmp_path):
    one, two = manifest(1), manifest(2)
    with uses.using(tmp_path, one):
        with uses.using(tmp_path, one), uses.using(tmp_path, two):
            assert set(uses.used(tmp_path)) == {one, two}
        assert uses.used(tmp_path) == [one]
    assert uses.used(tmp_path) == []
    assert list((tmp_path / uses.DIRECTORY).iterdir()) == []


def test_what_a_killed_process_used_is_free(tmp_path):
    code = (
        "import os, sys, pathlib; from oscirc_blockstore import manifest; from oscirc_remote import uses\n"
        "held = uses.using(pathlib.Path(sys.argv[1]), manifest.parse(sys.stdin.buffer.read()))\n"
        "held.__enter__(); print('held', flush=True); os.read(int(sys.argv[2]), 1)"
    )
    import os

    waiting, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(waiting)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[waiting],
    )
    try:
        process.stdin.write(manifest(1).serialise())
        process.stdin.close()
        assert process.stdout.readline() == b"held\n"
        assert uses.used(tmp_path) == [manifest(1)]
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
        os.close(waiting)
        os.close(writing)
    assert uses.used(tmp_path) == []


def test_a_leftover_that_an_evictor_removes_is_made_again(tmp_path):
    one = manifest(1)
    with uses.using(tmp_path, one):
        pass
    assert uses.used(tmp_path) == []
    with uses.using(tmp_path, one):
        assert uses.used(tmp_path) == [one]


@pytest.mark.parametrize("name", ["notes.txt", "0" * 64])
def test_files_of_another_kind_are_no_uses(tmp_path, name):
    directory = tmp_path / uses.DIRECTORY
    directory.mkdir()
    (directory / name).write_text("not a manifest")
    assert uses.used(tmp_path) == []


def test_a_cache_that_takes_no_locks_is_no_error(tmp_path):
    (tmp_path / uses.DIRECTORY).write_text("a file in the way")
    with uses.using(tmp_path, manifest(1)):
        pass
