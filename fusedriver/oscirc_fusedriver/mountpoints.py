"""The mount point before a mount and after one: what stands there, may we use it, is it dead.

What is mounted is read from `/proc/self/mountinfo`, which asks no driver. `stat` on a dead FUSE mount may still succeed
from the kernel's cache (our attributes are valid for a day), so a mount is called dead only when a call that always
reaches the driver says so, and a mount of another program is never touched.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.errors import BusyError, LocalError, NotFoundError, UsageError
from oscirc_fusedriver import kernel, records

KIND = "fuse.oscirc"
_PROBE_TIMEOUT_S = 2.0
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNT_NUMBER = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo: where, the kernel's `major:minor` and number of this mount, the kind of file system."""

    mountpoint: Path
    device: str
    kind: str
    number: int


def parse_mountinfo(text: str) -> list[MountEntry]:
    """Lines of `/proc/PID/mountinfo` (proc(5)): fields, optional fields, ` - `, kind and more."""
    entries = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 5:  # noqa: PLR2004
            path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            entries.append(MountEntry(Path(path), fields[2], after.split(" ")[0], int(fields[0])))
    return entries


def entry_at(mountpoint: Path) -> MountEntry | None:
    """What is mounted at this real path; the topmost when several are."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    found = [entry for entry in parse_mountinfo(text) if entry.mountpoint == mountpoint]
    return found[-1] if found else None


def is_open_in(pid: int, mountpoint: Path) -> bool:
    """Whether a process has a file open on what is mounted at this real path now, rather than on what was before.

    Read from the `mnt_id` of its descriptors (proc(5)), which asks no driver; a mount keeps its number while a file on
    it is open. False where nothing is mounted, or the process is gone or another user's.
    """
    entry = entry_at(mountpoint)
    if entry is None:
        return False
    try:
        descriptors = list(Path(f"/proc/{pid}/fdinfo").iterdir())
    except OSError:
        return False
    return any(_mount_number(each) == entry.number for each in descriptors)


def _mount_number(descriptor: Path) -> int | None:
    """The mount that an open descriptor's file is on; None when it was closed meanwhile."""
    try:
        text = descriptor.read_text(encoding="utf-8")
    except OSError:
        return None
    found = _MOUNT_NUMBER.search(text)
    return int(found[1]) if found else None


def is_dead(mountpoint: Path) -> bool:
    """Whether a FUSE mount has lost its driver. A driver that merely does not answer in time counts as living."""
    codes: list[int] = []

    def probe() -> None:
        try:
            descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            codes.append(error.errno or 0)
        else:
            os.close(descriptor)

    thread = threading.Thread(target=probe, daemon=True, name="mount-probe")
    thread.start()
    thread.join(_PROBE_TIMEOUT_S)
    return bool(codes) and codes[0] in (errno.ENOTCONN, errno.ECONNABORTED)


def clean_stale(mountpoint: Path) -> bool:
    """Take away a dead mount of ours and its record; whether there was one. Raises `BusyError` for a living one.

    The caller has claimed the mount point, so no driver of this user is at work there.
    """
    record = records.find_at(mountpoint)
    entry = entry_at(mountpoint)
    if record is not None:
        record.remove()
    if entry is None or entry.kind != KIND:
        return record is not None
    recorded = record is not None and record.device == entry.device  # its driver, and that is gone
    if not recorded and not is_dead(mountpoint):
        raise BusyError(
            f"another oscirc mount is at {mountpoint}, without a record here",
            hint=f"another user, or another XDG_RUNTIME_DIR? As its owner: fusermount3 -u {mountpoint}",
        )
    problem = kernel.unmount_now(mountpoint, lazy=True)
    if problem:
        raise LocalError(f"cannot clean up the dead mount at {mountpoint}: {problem}")
    return True


def check_usable(mountpoint: Path) -> None:
    """Raise unless this is an empty directory that this user may mount on."""
    entry = entry_at(mountpoint)
    try:
        with os.scandir(mountpoint) as found:
            first = next(found, None)
    except FileNotFoundError:
        raise NotFoundError(f"{mountpoint} does not exist", hint=f"make it: mkdir -p {mountpoint}") from None
    except NotADirectoryError:
        raise UsageError(f"{mountpoint} is not a directory") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN and entry is not None:
            raise LocalError(
                f"a dead {entry.kind} mount of another program is at {mountpoint}", hint=f"umount -l {mountpoint}"
            ) from None
        raise LocalError(f"cannot use {mountpoint}: {error.strerror}") from None
    if first is not None:
        raise UsageError(f"{mountpoint} is not empty ({first.name} is in it)", hint="give an empty directory")
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise LocalError(
            f"you may not mount on {mountpoint}: it is not yours to write", hint="give a directory of your own"
        )
