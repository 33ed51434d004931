import asyncio
import dataclasses
import os
import platform
import signal
import sys
import time
from pathlib import Path

import pytest

from oscirc_vmlaunch.processes import ProcessIdentity, identify, spawn_detached


@pytest.fixture
def sleeper(spawn):
    return spawn("sleep", "60")


def test_a_process_is_alive_until_it_was_ended(sleeper):
    assert sleeper.alive()
    assert identify(sleeper.pid) == sleeper
    assert sleeper.send(signal.SIGTERM)
    assert asyncio.run(sleeper.wait(10))
    assert not sleeper.alive()
    assert not sleeper.send(signal.SIGTERM)


def test_waiting_is_bounded(sleeper):
    assert not asyncio.run(sleeper.wait(0))
    assert not asyncio.run(sleeper.wait(0.05))


def test_a_reused_id_is_neither_signalled_nor_waited_for(sleeper):
    earlier = dataclasses.replace(sleeper, start_ticks=sleeper.start_ticks - 1)
    assert not earlier.alive()
    assert not earlier.send(signal.SIGKILL)
    assert sleeper.alive()


def test_a_zombie_is_dead(tmp_path):
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert not identify(child).alive()
        assert asyncio.run(identify(child).wait(0))
    finally:
        os.waitpid(child, 0)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of exit(2) is that of x86_64")
def test_a_process_lives_as_long_as_one_of_its_threads(spawn):
    read, write = os.pipe()
    try:
        program = (
            "import ctypes, os, threading\n"
            f"threading.Thread(target=os.read, args=({read}, 1)).start()\n"
            "ctypes.CDLL(None).syscall(60, 0)\n"  # the main thread's end, and only its
        )
        process = spawn(sys.executable, "-c", program, inherited=[read])
        deadline = time.monotonic() + 20
        while ") Z " not in Path(f"/proc/{process.pid}/stat").read_text():
            assert time.monotonic() < deadline
        assert process.alive()
        assert not asyncio.run(process.wait(0))
    finally:
        os.close(write)
        os.close(read)
    assert asyncio.run(process.wait(20))


def test_nobody_has_an_impossible_id():
    assert identify(2**22 + 1) is None
    assert asyncio.run(ProcessIdentity(2**22 + 1, 1, "").wait(1))


def test_a_detached_process_has_its_own_session_no_input_and_no_folder(sleeper):
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert Path(f"/proc/{sleeper.pid}/cwd").readlink() == Path("/")
    assert Path(f"/proc/{sleeper.pid}/fd/0").readlink() == Path("/dev/null")


def test_only_the_named_descriptors_are_inherited_and_output_goes_to_the_log(tmp_path):
    read, write = os.pipe()
    os.set_inheritable(read, True)  # noqa: FBT003
    try:
        log = tmp_path / "log"
        process = spawn_detached(
            ["sh", "-c", f"test -e /proc/self/fd/{write} && ! test -e /proc/self/fd/{read} && echo yes"],
            log=log,
            inherited=[write],
        )
        assert asyncio.run(process.wait(10))
        assert log.read_text() == "yes\n"
    finally:
        os.close(read)
        os.close(write)


def test_a_process_that_ends_at_once_can_be_waited_for(tmp_path):
    process = spawn_detached(["true"], log=tmp_path / "log", inherited=[])
    assert asyncio.run(process.wait(10))
    assert not process.alive()
