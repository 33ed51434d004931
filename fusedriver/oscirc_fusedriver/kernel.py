"""What the kernel and the fuse3 package must provide, and the one setting of theirs that is worth changing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from oscirc_blockstore.errors import LocalError, MissingProgramError

DEVICE = Path("/dev/fuse")
FUSERMOUNT = "fusermount3"
_PROGRAM_TIMEOUT_S = 10
_INSTALL = "install it: sudo apt-get install fuse3 (or your system's fuse3 package)"


def check_fuse(device: Path = DEVICE) -> None:
    """Raise what is missing on this machine to mount anything, with what to do about it."""
    if shutil.which(FUSERMOUNT) is None:
        raise MissingProgramError(f"{FUSERMOUNT} is not installed", hint=_INSTALL)
    if not device.exists():
        raise LocalError(
            f"{device} is not there: the kernel has no FUSE",
            hint="load the fuse module: sudo modprobe fuse (a container must be given the device)",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise LocalError(
            f"you are not allowed to open {device}",
            hint="ask for the permission (some systems have a group 'fuse'), or: sudo chmod 666 /dev/fuse",
        )


def raise_read_ahead(device: str, kilobytes: int, sysfs: Path = Path("/sys/class/bdi")) -> int:
    """Let the kernel read up to so many kB ahead on the mount `device` (`major:minor`); returns what holds then.

    Only root may; for others the kernel's 128 stays and 0 is returned. Measured with 1024 instead of 128: a quarter
    more from a warm cache.
    """
    setting = sysfs / device / "read_ahead_kb"
    try:
        if int(setting.read_text()) < kilobytes:
            setting.write_text(f"{kilobytes}\n")
        return int(setting.read_text())
    except (OSError, ValueError):
        return 0


def abort(device: str, fusectl: Path = Path("/sys/fs/fuse/connections")) -> None:
    """Cut the connection of the mount `device` (`major:minor`), where that is allowed and the control files are there.

    Every request, waiting or to come, fails then; also those that nobody could end otherwise.
    """
    with contextlib.suppress(OSError):
        (fusectl / device.partition(":")[2] / "abort").write_text("1")


def unmount_command(mountpoint: Path, *, lazy: bool = False) -> list[str]:
    """The command that unmounts, for root and for the user who mounted."""
    return [FUSERMOUNT, "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]


def is_busy(message: str) -> bool:
    """Whether fusermount3's words say that files are open. (It never translates them.)"""
    return "busy" in message


def unmount_now(mountpoint: Path, *, lazy: bool = False) -> str:
    """Unmount; returns what went wrong in fusermount3's words, or nothing. Raises `MissingProgramError`."""
    try:
        done = subprocess.run(
            unmount_command(mountpoint, lazy=lazy),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_PROGRAM_TIMEOUT_S,
        )
    except FileNotFoundError:
        raise MissingProgramError(f"{FUSERMOUNT} is not installed", hint=_INSTALL) from None
    except subprocess.TimeoutExpired:
        return f"{FUSERMOUNT} did not end within {_PROGRAM_TIMEOUT_S} s"
    return "" if done.returncode == 0 else done.stderr.strip() or f"{FUSERMOUNT}: exit {done.returncode}"
