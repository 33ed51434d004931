import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_remote import ofd_locks, uses

from .fakes import BLOCK_SIZE, block, make_image


def manifest(number):
    return make_image({0: block(number)}, BLOCK_SIZE)[0]


def test_an_image_is_used_as_long_as_somebody_holds_it(tmp_path):
    one, two = manifest(1), manifest(2)
    with uses.using(tmp_path, one):
        with uses.using(tmp_path, one), uses.using(tmp_path, two):
            assert set(uses.used(tmp_path)) == {one, two}
        assert uses.used(tmp_path) == [one]
        assert [use.manifest for use in uses.ended(tmp_path)] == [two]
    assert uses.used(tmp_path) == []


def test_when_a_use_ended_is_known_until_it_is_forgotten(tmp_path):
    one = manifest(1)
    with uses.using(tmp_path, one):
        began = time.time() - 1000
        (file,) = (tmp_path / uses.DIRECTORY).iterdir()
        os.utime(file, (began, began))
    (use,) = uses.ended(tmp_path)
    assert abs(use.last_used - time.time()) < 60
    uses.forget(tmp_path, use)
    assert uses.ended(tmp_path) == []
    uses.forget(tmp_path, use)


def test_a_use_that_began_again_is_not_forgotten(tmp_path):
    one = manifest(1)
    with uses.using(tmp_path, one):
        pass
    (use,) = uses.ended(tmp_path)
    with uses.using(tmp_path, one):
        uses.forget(tmp_path, use)
        assert uses.used(tmp_path) == [one]


def test_what_is_in_use_and_cannot_be_read_is_an_error_and_not_no_use(tmp_path):
    with uses.using(tmp_path, manifest(1)):
        (file,) = (tmp_path / uses.DIRECTORY).iterdir()
        file.write_bytes(b"")
        with pytest.raises(LocalError, match="in use"):
            uses.used(tmp_path)


def test_somebody_else_s_use_is_an_error_and_not_no_use(tmp_path, monkeypatch):
    with uses.using(tmp_path, manifest(1)):
        pass
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    for ask in (uses.used, uses.ended):
        with pytest.raises(LocalError, match="Permission denied") as refusal:
            ask(tmp_path)
        assert "one user" in refusal.value.hint


def test_nobody_begins_to_use_while_a_batch_is_removed_nor_waits_for_ever(tmp_path, monkeypatch):
    began, may_begin = [], threading.Event()

    def begin():
        with uses.using(tmp_path, manifest(1)):
            began.append(time.monotonic())
            may_begin.wait(20)

    thread = threading.Thread(target=begin)
    with uses.evicting(tmp_path):
        thread.start()
        thread.join(0.1)
        assert (began, uses.used(tmp_path)) == ([], [])
    while not began:
        thread.join(0.01)
    assert uses.used(tmp_path) == [manifest(1)]
    may_begin.set()
    thread.join(20)
    monkeypatch.setattr(uses, "GATE_S", 0.05)
    with uses.evicting(tmp_path):
        with uses.using(tmp_path, manifest(1)):  # its holder may have been stopped
            assert uses.used(tmp_path) == [manifest(1)]
        with pytest.raises(BusyError), uses.evicting(tmp_path):
            pass


def test_what_a_killed_process_used_is_free(tmp_path):
    code = (
        "import os, sys, pathlib; from oscirc_blockstore import manifest; from oscirc_remote import uses\n"
        "held = uses.using(pathlib.Path(sys.argv[1]), manifest.parse(sys.stdin.buffer.read()))\n"
        "held.__enter__(); print('held', flush=True); os.read(int(sys.argv[2]), 1)"
    )
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


def test_a_cache_that_takes_no_locks_is_no_error_of_a_mount_but_is_said(tmp_path, caplog):
    (tmp_path / uses.DIRECTORY).write_text("a file in the way")
    with caplog.at_level(logging.WARNING), uses.using(tmp_path, manifest(1)):
        pass
    assert "may evict what is in use" in caplog.text


def test_a_file_that_somebody_locked_for_himself_is_no_error_and_nobody_waits_for_it(tmp_path, caplog):
    one = manifest(1)
    directory = tmp_path / uses.DIRECTORY
    directory.mkdir()
    descriptor = os.open(directory / digest_of(one.serialise()).hex(), os.O_RDWR | os.O_CREAT)
    assert ofd_locks.take(descriptor, ofd_locks.EXCLUSIVE)
    with uses.using(tmp_path, one):
        assert "locked by somebody else" in caplog.text
    os.close(descriptor)
