"""Clients whose mirrors fail, and replays of a recorded boot that go on meanwhile: processes, as a user has them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from contenders import detach, is_mounted
from harness import Workstation
from replay import AS_GUEST
from staging import Stage

REPLAY_S = 300
"""What no replay takes that comes to its end at all."""
_TICK_S = 0.01


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay went: seconds in all, the slowest read's, and the reads that were not what the disk holds."""

    seconds: float
    worst_s: float
    reads: int
    wrong: int


class Replayer:
    """One replay as a process of its own, ready to read; `begin`, then `replayed`. Use as a context manager."""

    def __init__(self, stage: Stage) -> None:
        program = str(Path(__file__).with_name("replay.py"))
        command = [sys.executable, program, AS_GUEST, str(stage.trace), "-", str(stage.disk)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def begin(self, disk: Path) -> None:
        """Read this disk from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the replayer did not start"
        self._process.stdin.write(f"{disk}\n")
        self._process.stdin.close()
        self._process.stdin = None

    def goes_on(self) -> bool:
        """Whether it still reads."""
        return self._process.poll() is None

    def replayed(self) -> Replayed:
        """Wait for its end, which must be a good one."""
        output, _ = self._process.communicate(timeout=REPLAY_S)
        assert not self._process.returncode, f"the replay ended with {self._process.returncode}"
        facts = json.loads(output)
        return Replayed(facts["seconds"], facts["worst_s"][-1], facts["reads"], facts["wrong"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def new_client(home: Path, pin: str, urls: Sequence[str]) -> Workstation:
    """A workstation that knows a repository as `r`, by these mirrors in this order, and has nothing of it."""
    station = Workstation(home)
    station.run("remote", "add", "r", f"{urls[0]}#{pin}")
    for url in urls[1:]:
        station.run("remote", "mirrors", "r", "--add", url)
    return station


@contextlib.contextmanager
def mounted(station: Workstation, place: Path, *options: str) -> Iterator[Path]:
    """The image with a boot profile, mounted by `oscirc mount`; gives the disk. Unmounted at the end, come what may."""
    place.mkdir(parents=True)
    try:
        station.run("mount", "r:bench/profiled", place, *options)
        yield place / "disk.raw"
    finally:
        if is_mounted(place):
            station.attempt("umount", place)
        detach(place)


def replay(stage: Stage, disk: Path, act: Callable[[], bool] = lambda: True) -> Replayed:
    """Replay the stage's boot. `act` is called again and again meanwhile until it says that it has acted; it must
    have, before the replay ends.
    """
    with Replayer(stage) as replayer:
        replayer.begin(disk)
        while not (acted := act()) and replayer.goes_on():
            time.sleep(_TICK_S)
        found = replayer.replayed()
        assert acted, "the replay was over before anything happened"
        return found
