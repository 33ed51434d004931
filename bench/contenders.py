"""What is measured against what: each way of reading a remote disk, behind one small interface.

A contender prepares off the clock, starts on the clock (from the command that its user types until the disk can be
opened), and stops. What it gives is a path: the replayer reads the same trace from each. All are served by the same
nginx over the same link; who cannot read a repository gets the whole disk, raw or as one zstd file.

- `oscirc-profile`, `oscirc-plain`: a client that has the remote's URL and pinned root, no metadata and no block.
- `oscirc-warm`: the same client after a boot: cache filled, then mounted anew.
- `download`: the archive through `curl | zstd -d`, then the local file.

`peers.py` has the others. A start or a replay that outlasts its cut-off is stopped, never waited for.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness import Workstation
from replay import AS_GUEST
from staging import Stage
from support.commands import end

HERE = Path(__file__).resolve().parent


class TooSlow(Exception):  # noqa: N818  # a verdict, not an error
    """A contender did not come up before its cut-off."""


class Failed(Exception):  # noqa: N818  # a verdict, too
    """A contender or its replay broke: says nothing of its speed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a contender works: a stage, the link's port and the server's own, an empty directory."""

    stage: Stage
    port: int
    server_port: int
    work: Path

    def file_url(self, name: str) -> str:
        """The whole disk, `disk.raw` or `disk.raw.zst`, beyond the link."""
        return f"http://127.0.0.1:{self.port}/files/{name}"


class Contender(Protocol):
    """One way to the disk's bytes. `label` stands in tables and plots; `note` says which programs and options."""

    name: str
    label: str
    note: str
    as_guest: bool
    """Whether it opens its disk for QEMU as `oscirc boot` does, so that the kernel reads nothing ahead."""

    def prepare(self, setting: Setting) -> None:
        """Whatever its user did on another day; not measured."""

    def start(self, setting: Setting, cutoff: float) -> Path:
        """Give the disk as a file; raises TooSlow once monotonic time passes `cutoff`."""

    def stop(self, setting: Setting) -> None:
        """End it, come what may; called once, also after a failed start."""


@dataclass
class Oscirc:
    """This project: the image with a boot profile, or the one without."""

    name: str
    label: str
    note: str
    image: str
    warm: bool = False
    as_guest: bool = True
    _station: Workstation | None = field(default=None, init=False)

    def prepare(self, setting: Setting) -> None:
        """Add the remote, and forget all that adding it left except URL and root; or fill the cache."""
        station = self._station = Workstation(setting.work / "client")
        if self.warm:
            station.run("remote", "add", "near", setting.stage.remote_line(setting.server_port))
            self._boot_once(station, "near", setting)
        station.run("remote", "add", "r", setting.stage.remote_line(setting.port))
        if self.warm:
            self._boot_once(station, "r", setting)
            return
        for each in (station.home / "data" / "oscirc" / "remotes" / "r").iterdir():
            if each.name not in {"remote.json", "root.json"}:
                shutil.rmtree(each) if each.is_dir() else each.unlink()

    def _boot_once(self, station: Workstation, remote: str, setting: Setting) -> None:
        place = setting.work / f"before-{remote}"
        place.mkdir()
        station.run("mount", f"{remote}:bench/{self.image}", place)
        command = [sys.executable, str(HERE / "replay.py"), AS_GUEST, str(setting.stage.trace), str(place / "disk.raw")]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        station.run("umount", place)

    def start(self, setting: Setting, cutoff: float) -> Path:
        """`oscirc mount`, which returns when the disk can be read."""
        assert self._station is not None
        place = setting.work / "mount"
        place.mkdir()
        try:
            self._station.run("mount", f"r:bench/{self.image}", place, timeout=max(1.0, cutoff - time.monotonic()))
        except subprocess.TimeoutExpired as late:
            raise TooSlow(self.name) from late
        return place / "disk.raw"

    def stop(self, setting: Setting) -> None:
        """`oscirc umount`."""
        for place in ("mount", "before-near", "before-r"):
            if self._station is not None and is_mounted(setting.work / place):
                self._station.attempt("umount", setting.work / place)
            detach(setting.work / place)


@dataclass
class Download:
    """The whole disk, then its bytes from the local file system."""

    name: str = "download"
    label: str = "full download"
    note: str = "curl of the disk as one zstd file (level 3), decompressed by zstd as it arrives, then the local file"
    as_guest: bool = False

    def prepare(self, setting: Setting) -> None:
        """Nothing."""

    def start(self, setting: Setting, cutoff: float) -> Path:
        """Fetch and decompress in one pipe, as a careful user would."""
        disk = setting.work / "disk.raw"
        with subprocess.Popen(["curl", "-sf", setting.file_url("disk.raw.zst")], stdout=subprocess.PIPE) as fetching:
            unpacking = subprocess.Popen(["zstd", "-dqf", "-o", str(disk)], stdin=fetching.stdout)
            try:
                code = unpacking.wait(max(0.1, cutoff - time.monotonic()))
            except subprocess.TimeoutExpired as late:
                end(unpacking)
                raise TooSlow(self.name) from late
            finally:
                fetching.terminate()
        if code:
            raise Failed(f"{self.name}: zstd ended with {code}")
        return disk

    def stop(self, setting: Setting) -> None:
        """The work directory's end is the file's."""


def is_mounted(place: Path) -> bool:
    """Whether something is mounted there."""
    return any(line.split()[4] == str(place) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def detach(place: Path) -> None:
    """Unmount a place if something is mounted there, busy or not."""
    if is_mounted(place):
        subprocess.run(["fusermount3", "-uz", str(place)], check=False, stderr=subprocess.DEVNULL)


def wait_until(there: Callable[[], bool], cutoff: float, name: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """Poll a condition every few milliseconds; TooSlow at the cut-off, Failed if a program died."""
    while True:
        with contextlib.suppress(OSError):
            if there():
                return
        for process in processes:
            if process.poll() is not None:
                raise Failed(f"{name}: {process.args!r} ended with {process.returncode}")
        if time.monotonic() > cutoff:
            raise TooSlow(name)
        time.sleep(0.005)


def oscirc_contenders() -> tuple[Oscirc, ...]:
    """This project's three."""
    cold = "cold: the client has the remote's URL and pinned root only"
    return (
        Oscirc("oscirc-profile", "oscirc, profile", cold, "profiled"),
        Oscirc("oscirc-plain", "oscirc, no profile", "the same with an image of which no boot was recorded", "plain"),
        Oscirc("oscirc-warm", "oscirc, warm", "booted before: all is cached", "profiled", warm=True),
    )
