"""A person records a session: `record --interactive` with the small guest, at a pseudo-terminal."""

import contextlib
import os
import pty
import re
import select
import subprocess
import time

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from oscirc_blockstore.profile import parse

pytestmark = [pytest.mark.vm, pytest.mark.guest, pytest.mark.fuse, pytest.mark.timeout(800)]
BOOT_DEADLINE_S = 300


@pytest.fixture(scope="module")
def station(tmp_path_factory, small_disk):
    directory = tmp_path_factory.mktemp("world")
    station = Workstation(directory / "user")
    repository = initialise(station, directory / "repository")
    with serving(station, repository):
        add_publisher(station, repository, "alice")
        station.run("publish", small_disk(), "test:alice/small@1", "--key", "alice", "--memory", "256")
        yield station


class Person:
    """Reads until something is shown, and types."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self.shown = ""

    def read_until(self, pattern):
        deadline = time.monotonic() + BOOT_DEADLINE_S
        while not re.search(pattern, self.shown):
            ready, _, _ = select.select([self._descriptor], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern} did not come:\n{self.shown[-2000:]}"
            self._read()

    def read_to_the_end(self):
        with contextlib.suppress(OSError):  # nobody holds the other side any more
            while self._read():
                pass

    def _read(self):
        raw = os.read(self._descriptor, 65536)
        self.shown += raw.decode(errors="replace")
        return raw

    def type(self, text):
        os.write(self._descriptor, text.encode())


def test_what_is_typed_reaches_the_guest_and_ctrl_bracket_ends_the_recording(station, tmp_path):
    output, traces = tmp_path / "session.json", tmp_path / "traces"
    ours, theirs = pty.openpty()
    recording = ("record", "test:alice/small", "--name", "session", "--interactive", "-o", output, "--accel", "tcg")
    process = subprocess.Popen(
        station.command(*recording, "--keep-traces", traces),
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=station.environment,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        person = Person(ours)
        person.read_until("circuit login:")
        person.type("root\r")
        person.read_until("Password:")
        person.type("\x1d")
        person.read_to_the_end()
        assert process.wait(120) == 0, person.shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "until Ctrl-] is typed or the guest ends" in person.shown
    profile = parse(output.read_bytes())
    assert (profile.name, profile.runs) == ("session", 1)
    assert len(profile.positions) > 10
    assert station.json("status")["mounts"] == station.json("ps")["instances"] == []

    (trace,) = traces.iterdir()
    again = tmp_path / "again.json"
    station.run("profile", "make", "test:alice/small@1", trace, "--name", "session", "-o", again)
    assert again.read_bytes() == output.read_bytes()


def test_without_a_terminal_nothing_is_booted(station, tmp_path):
    output = tmp_path / "x.json"
    error = station.refused("record", "test:alice/small", "--interactive", "-o", output, code=2)
    assert "needs a terminal" in error
    assert "--interactive" in station.refused("record", "test:alice/small", "--display", "gtk", "-o", output, code=2)
    assert "run 1" not in error
