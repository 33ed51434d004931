"""Leaving the terminal, without a mount. The bodies run in processes of their own, started from a small program."""

import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from oscirc_fusedriver.background import run_in_background
from oscirc_fusedriver.processes import ProcessIdentity

PROGRAM = """
import json, logging, os, sys, threading
from pathlib import Path
from oscirc_blockstore.errors import *
from oscirc_fusedriver.background import run_in_background
from oscirc_fusedriver.processes import ProcessIdentity
def body(announce):
{body}
{before}
try:
    said = run_in_background(body, log_path=Path(sys.argv[1]), timeout_s=float(sys.argv[2]))
    print(json.dumps(said))
except OscircError as error:
    print(json.dumps([type(error).__name__, str(error), error.hint]))
"""


@pytest.fixture
def run(tmp_path):
    def run_it(body: str, timeout_s: float = 30, before: str = "", **options):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PROGRAM.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")).replace("{before}", before),
                str(tmp_path / "log"),
                str(timeout_s),
            ],
            env=os.environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            **options,
        )
        return json.loads(done.stdout), done.stderr

    return run_it


def test_what_is_announced_is_returned_and_the_body_goes_on(run, tmp_path):
    said, _ = run(
        """
        announce({"pid": os.getpid(), "session": os.getsid(0), "directory": os.getcwd()})
        print("to nobody"); print("to the log", file=sys.stderr)
        logging.getLogger("oscirc_fusedriver.x").info("a line")
        logging.getLogger("others").info("not this")
        """
    )
    assert said["pid"] != said["session"]  # so it can never get a terminal again
    assert said["directory"] == "/"
    assert ProcessIdentity.of(said["pid"]).wait(30)
    log = (tmp_path / "log").read_text()
    assert "to the log" in log
    assert "INFO oscirc_fusedriver.x: a line" in log
    assert "nobody" not in log
    assert "not this" not in log
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_the_callers_output_is_closed_although_the_body_goes_on(run):
    said, _ = run(
        """
        announce({"pid": os.getpid()})
        threading.Event().wait(30)
        """
    )  # capture_output would wait for the last holder of the pipe
    identity = ProcessIdentity.of(said["pid"])
    assert identity.alive()
    identity.end(10)


def test_an_error_before_is_the_callers(run):
    said, _ = run("raise TrustError('no', hint='ask')")
    assert said == ["TrustError", "no", "ask"]


def test_an_unexpected_error_before_is_shown_in_full(run):
    said, shown = run("raise ValueError('a bug')")
    assert said[0] == "OscircError"
    assert "a bug" in said[1]
    assert "Traceback" in shown


def test_an_error_afterwards_is_in_the_log(run, tmp_path):
    said, _ = run(
        """
        announce({"pid": os.getpid()})
        raise ValueError('a bug')
        """
    )
    assert ProcessIdentity.of(said["pid"]).wait(30)
    assert "ValueError: a bug" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_an_end_without_a_word_is_noticed(run, end):
    said, _ = run(end)
    assert said[0] == "LocalError"
    assert "without a word" in said[1]


def test_what_takes_too_long_is_ended(run, tmp_path):
    note = tmp_path / "pid"
    said, _ = run(
        f"""
        Path({str(note)!r}).write_text(str(os.getpid()))
        threading.Event().wait(60)
        """,
        timeout_s=3,
    )
    assert said[0] == "DeadlineExceededError"
    assert not ProcessIdentity.of(int(note.read_text())).alive()


def test_the_callers_own_exit_work_is_not_done_twice(run, tmp_path):
    note = tmp_path / "exits"
    program = f"""
        import atexit
        atexit.register(lambda: Path({str(note)!r}).write_text("done"))
        announce({{"pid": os.getpid()}})
    """
    said, _ = run(program)
    assert ProcessIdentity.of(said["pid"]).wait(30)
    assert not note.exists()


LEFT_BEHIND = """
from oscirc_remote import name_lookups
go_on, was_left = os.pipe()
def resolve(host, port):
    os.read(go_on, 1)
    return ()
name_lookups.LOOKUPS = name_lookups.NameLookups(resolve)
try:
    name_lookups.LOOKUPS.addresses("slow.example", 80, 0.001)
except TimeoutError:
    pass
assert threading.active_count() == 2
settle = name_lookups.LOOKUPS.settle
def settles(timeout_s):
    os.write(was_left, b"!")
    settle(timeout_s)
name_lookups.LOOKUPS.settle = settles
"""


def test_a_lookup_of_a_name_that_was_left_behind_is_waited_for(run):
    said, _ = run('announce({"threads": threading.active_count()})', before=LEFT_BEHIND)
    assert said["threads"] == 1


ENDING = """
import _thread, time
_thread.start_new_thread(time.sleep, (0.2,))  # unknown to `threading`, as one that was joined is
"""


def test_a_thread_that_the_kernel_still_knows_is_waited_for(run):
    said, _ = run('announce({"threads": threading.active_count()})', before=ENDING)
    assert said["threads"] == 1


def test_a_process_with_threads_is_refused(tmp_path):
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(30,))
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="threads"):
            run_in_background(lambda announce: None, log_path=tmp_path / "log", timeout_s=1)
    finally:
        leave.set()
        thread.join(30)
