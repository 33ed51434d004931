"""A guest that boots from mirrors at the far ends of links, and the cutting of a link."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from typing import Self

from support.commands import Workstation, end
from support.links import FarMirror

ERRORS = r"I/O error|i/o error|EXT4-fs error|Buffer I/O|blk_update_request|Remounting filesystem read-only|Kernel panic"


class Guest:
    """The instance `one`, which `oscirc boot` boots in a process of its own; `log` is its console, `mirror` the mirror
    that it prefers, `other` one that it has besides.
    """

    def __init__(
        self,
        station: Workstation,
        mirror: FarMirror,
        pin: str,
        reference: str,
        login: str,
        *options: object,
        other: FarMirror | None = None,
    ) -> None:
        self.station, self.mirror = station, mirror
        station.run("remote", "add", "m", f"{mirror.url}#{pin}")
        if other is not None:
            station.run("remote", "mirrors", "m", "--add", other.url)
        self.log = station.home / "data" / "oscirc" / "instances" / "one" / "console.log"
        boot = ("boot", f"m:{reference}", "--name", "one", "--accel", "tcg", "--wait-for", login, *options)
        self.process = station.start(*boot, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def facts(self) -> dict[str, object]:
        """What `oscirc status` says of it."""
        return self.station.json("status", "one")

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Until that is so; the test fails when it takes longer or the command ends."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"{what}: boot ended\n{self.process.stdout.read()}"
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def cut_for(self, seconds: float, moved_bytes: int) -> dict[str, object]:
        """Cut the network once so many bytes came; returns what `status` said when the guest had paused."""
        self.wait(lambda: self.mirror.link.tell().bytes_down > moved_bytes, "it boots", 120)
        self.mirror.link.tell("cut")
        began = time.monotonic()
        supervisor = self.log.with_name("supervisor.log")
        self.wait(lambda: supervisor.exists() and "paused: the network" in supervisor.read_text(), "it pauses", 60)
        said = self.facts()
        self.wait(lambda: time.monotonic() > began + seconds, "it stays paused", seconds + 60)
        assert self.facts()["state"] == "paused"
        self.mirror.link.tell("restore")
        return said

    def reaches_login(self, timeout_s: float, *, after_a_pause: bool = True) -> dict[str, object]:
        """Until the command saw the prompt; the guest must have run on by itself (or never paused), and seen no error."""
        assert self.process.wait(timeout_s) == 0, self.process.stdout.read()
        text = self.log.read_text(errors="replace")
        assert not re.search(ERRORS, text), text[-4000:]
        supervisor = self.log.with_name("supervisor.log")
        reported = supervisor.read_text() if supervisor.exists() else ""
        if after_a_pause:
            assert "the guest runs again after" in reported
        else:
            assert "paused" not in reported
        facts = self.facts()
        assert (facts["state"], facts["paused_by"], facts["network_problem"]) == ("running", "", "")
        return facts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process)
        self.mirror.link.tell("restore")
        if self.process.stdout:
            self.process.stdout.close()
        self.station.attempt("rm", "--force", "one")
        for mount in self.station.json("status")["mounts"]:
            self.station.attempt("umount", mount["mountpoint"])
