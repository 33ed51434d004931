"""What an image's page prints is what boots it: copied by its button in a browser, pasted into a terminal, to the login.

The terminal is a pseudo-terminal of its own session with the user's directories, `oscirc` on its path and nothing
prepared. /dev/kvm is hidden from QEMU (in a mount namespace), so that the fall back to emulation, which the printed
command asks for, is what runs here; a KVM that is there and hangs is no promise of the page's.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving

from tests.browser.browsing import copied, launched, usable_chromium

pytestmark = [pytest.mark.vm, pytest.mark.guest, pytest.mark.timeout(1500)]
BOOT_DEADLINE_S = 300
WITHOUT_KVM = ("unshare", "--mount", "--", "sh", "-c", 'mount --bind /dev/null /dev/kvm; exec "$@"', "sh")


class Terminal:
    """A shell that runs one line; what it shows is read until a word comes."""

    def __init__(self, line, station, directory, prefix=()):
        self.leader, follower = pty.openpty()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            [*prefix, "sh", "-c", line],
            **dict.fromkeys(("stdin", "stdout", "stderr"), follower),
            env={**station.environment, "PATH": path, "TERM": "linux"},
            cwd=directory,
            start_new_session=True,
        )
        os.close(follower)
        self.shown = ""

    def read_until(self, pattern, deadline_s=BOOT_DEADLINE_S):
        end = time.monotonic() + deadline_s
        while not re.search(pattern, self.shown):
            ready, _, _ = select.select([self.leader], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern} did not come in {deadline_s} s:\n{self.shown[-3000:]}"
            try:
                self.shown += os.read(self.leader, 65536).decode(errors="replace")
            except OSError:  # nobody has the other side any more
                raise AssertionError(f"it ended without {pattern}:\n{self.shown[-3000:]}") from None

    def type(self, text):
        os.write(self.leader, text.encode())

    def wait(self):
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
        os.close(self.leader)


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments, **options):
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture(params=["bios", "uefi"])
def page(request, tmp_path, small_disk):
    """The served page of the small guest, published for this firmware."""
    operator = Workstation(tmp_path / "operator")
    repository = initialise(operator, tmp_path / "repository")
    with serving(operator, repository):
        add_publisher(operator, repository, "alice")
        facts = ("--key", "alice", "--firmware", request.param, "--memory", "256")
        operator.run("publish", small_disk(1, request.param), "test:alice/circuit@1", *facts)
        yield f"http://127.0.0.1:{repository.port}/images/alice/circuit"


def printed(page, tab):
    """The lines of a tab, each as its button puts it onto the clipboard."""
    with launched(usable_chromium()) as browser:
        return copied(browser, page, tab)


@pytest.mark.fuse
def test_the_line_for_oscirc_boots_a_guest_on_a_machine_that_knew_nothing(page, tmp_path, terminal):
    user = Workstation(tmp_path / "user")
    first, again = printed(page, "oscirc")
    try:
        shell = terminal(first, user, tmp_path)
        shell.read_until("circuit login:")
        shell.type("\x1d")
        assert shell.wait() == 0
        user.run("stop", "circuit", timeout=120)
        shell = terminal(again, user, tmp_path)
        shell.read_until("circuit login:")
        shell.type("\x1d")
        assert shell.wait() == 0
    finally:
        user.attempt("rm", "--force", "circuit")
        for mount in user.json("status")["mounts"]:
            user.run("umount", mount["mountpoint"])


@pytest.mark.root
def test_the_lines_for_plain_qemu_download_the_disk_and_boot_it(page, tmp_path, terminal):
    user = Workstation(tmp_path / "user")
    fetch, boot = printed(page, "qemu")
    assert terminal(fetch, user, tmp_path).wait() == 0
    shell = terminal(boot, user, tmp_path, WITHOUT_KVM)
    shell.read_until("circuit login:")
    shell.type("\x01x")
    assert shell.wait() == 0
