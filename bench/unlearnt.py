"""A client that never saw a system of the kind it boots: its list of what boots read was learnt from other releases.

The list that oscirc ships (`oscirc_remote/boot_paths.txt`) was learnt from boots of Debian 12, 13 and 14, which are
what is measured. How it does on a system that it was not learnt from is asked here: the same client, with a list that
`learn_boot_paths.py` makes of the recorded boots of the other releases only. The program is not changed for that:
a directory before it on Python's path has links to all files of `oscirc_remote` but that list.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import learn_boot_paths
from contenders import Oscirc, Setting
from harness import ROOT
from staging import SUITES, prepare, stage_disk

ROOM = ROOT / "remote" / "oscirc_remote"
LIST = "boot_paths.txt"


def others(name: str) -> list[str]:
    """The stages that a list for this one is learnt from."""
    return [each for each in SUITES if each != name]


@functools.cache
def list_without(name: str) -> str:
    """The list as it would be had nobody ever booted this system; prepares the others' stages where they are not."""
    stages = [prepare(each, stage_disk(each)) for each in others(name)]
    learnt = [learn_boot_paths.learn(stage.disk, stage.trace) for stage in stages]
    return learn_boot_paths.text([stage.name for stage in stages], learnt)


def room_with(text: str, directory: Path) -> Path:
    """A folder for Python's path in which `oscirc_remote` has this list and is otherwise what it is."""
    package = directory / "oscirc_remote"
    package.mkdir(parents=True)
    for path in ROOM.iterdir():
        if path.name not in {LIST, "__pycache__"}:
            (package / path.name).symlink_to(path)
    (package / LIST).write_text(text, encoding="utf-8")
    return directory


@dataclass
class Unlearnt(Oscirc):
    """This project without a profile, and without having learnt from the system."""

    def prepare(self, setting: Setting) -> None:
        """As without a profile; every command then runs with the other list."""
        super().prepare(setting)
        assert self._station is not None  # it was made just now
        self._station.extra["PYTHONPATH"] = str(room_with(list_without(setting.stage.name), setting.work / "room"))
        self._station.run("remote", "list")  # so that Python has compiled it


def unlearnt_contender() -> Unlearnt:
    """It, for the tables."""
    note = "no profile, and a list of what boots read that was learnt from the other releases only"
    return Unlearnt("oscirc-unlearnt", "oscirc, no profile, not learnt from", note, "plain")
