"""The disks that updates are compared on, and their used content. Built once, by `guests/`, where they are missing.

- `upgrade`: Debian 12 as it was released, and after `apt-get upgrade`: all fixes except a kernel whose name is new.
- `upgrade-kernel`: the same disk after `apt upgrade`, which brings that kernel too.
- `release`: Debian 12 with its fixes, and Debian 13 made of it in place.

Used content: the blocks with data, one after the other, as one file: what a tool is given that knows no holes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

BLOCK = 256 << 10
NIGHTS = 10
_NEXT = "trixie"


@dataclass(frozen=True, slots=True)
class DiskPair:
    """Two versions of a disk; `packages` has a line for each package that changed."""

    name: str
    title: str
    old: Path
    new: Path
    packages: Path

    def package_lines(self) -> list[str]:
        """What changed; nothing where the disks' folder does not tell."""
        return self.packages.read_text(encoding="utf-8").splitlines() if self.packages.exists() else []


def pairs(disks: Path) -> dict[str, DiskPair]:
    """By name; the disks need not be there."""
    v1, fixed = disks / "v1.raw", disks / "v2-same-kernel.raw"
    found = (
        DiskPair("upgrade", "Debian 12, `apt-get upgrade`", v1, fixed, disks / "packages-same-kernel.txt"),
        DiskPair("upgrade-kernel", "Debian 12, `apt upgrade` with a new kernel", v1, disks / "v2.raw",
                 disks / "packages.txt"),
        DiskPair("release", "Debian 12 to 13 in place", fixed, disks / f"to-{_NEXT}.raw",
                 disks / f"packages-to-{_NEXT}.txt"),
    )  # fmt: skip
    return {pair.name: pair for pair in found}


def night_disks(disks: Path) -> list[Path]:
    """The disk before the first night, then one for each; they need not be there."""
    return [disks / "v1.raw", *(disks / "nights" / f"{number:02}.raw" for number in range(1, NIGHTS + 1))]


def build(disks: Path, wanted: list[str], *, nights: bool) -> None:
    """Have `guests/` build what is missing; needs root for that."""
    have = pairs(disks)
    commands = []
    if any(not path.exists() for name in wanted for path in (have[name].old, have[name].new)):
        options = [option for name, option in _OPTIONS.items() if name in wanted]
        commands += [["debian.py", str(disks), *options]]
        if "release" in wanted:
            commands += [["nights.py", str(disks), "--next-release", _NEXT]]
    if nights and not all(path.exists() for path in night_disks(disks)):
        commands += [["nights.py", str(disks), "--nights", str(NIGHTS)]]
    for script, *arguments in commands:
        prefix = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*prefix, sys.executable, str(ROOT / "guests" / script), *arguments], check=True)


_OPTIONS = {"upgrade": "--same-kernel", "upgrade-kernel": "--upgraded"}


def write_used_content(disk: Path, target: Path) -> int:
    """The blocks with data, one after the other; gives their bytes."""
    zeros, written = bytes(BLOCK), 0
    with disk.open("rb") as source, target.open("wb") as out:
        while block := source.read(BLOCK):
            if block != zeros[: len(block)]:
                written += out.write(block)
    return written
