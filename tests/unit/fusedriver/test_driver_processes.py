import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from oscirc_fusedriver.processes import ProcessIdentity, users_of


@pytest.fixture
def sleeper(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_this_process_lives():
    me = ProcessIdentity.current()
    assert me.pid == os.getpid()
    assert me.alive()
    assert not replace(me, start_ticks=me.start_ticks - 1).alive()


def test_a_process_lives_until_it_ends_even_if_nobody_collects_it(sleeper):
    identity = ProcessIdentity.of(sleeper.pid)
    assert identity.alive()
    assert identity.wait(0.01) is False
    sleeper.stdin.write(b"\n")
    sleeper.stdin.flush()
    assert identity.wait(30) is True
    assert not identity.alive()  # a zombie


def test_a_number_that_was_given_away_is_neither_waited_for_nor_ended(sleeper):
    stranger = replace(ProcessIdentity.of(sleeper.pid), start_ticks=7)
    assert stranger.wait(30) is True
    stranger.end(1)
    assert sleeper.poll() is None


def test_ending_a_process_that_does_not_listen():
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        ProcessIdentity.of(process.pid).end(0.2)
        assert process.wait(30) == -signal.SIGKILL


def test_nobody_is_not_alive():
    nobody = ProcessIdentity.of(2**22 + 1)
    assert not nobody.alive()
    nobody.end(0.1)


def test_users_of_a_directory_are_named(sleeper, tmp_path):
    other = tmp_path / "inner"
    other.mkdir()
    file = other / "file"
    file.write_text("x")
    assert [text for text in users_of(tmp_path) if f"({sleeper.pid})" in text]
    assert users_of(other) == []
    with file.open():
        assert users_of(other) == [f"{Path('/proc/self/comm').read_text().strip()} ({os.getpid()})"]
