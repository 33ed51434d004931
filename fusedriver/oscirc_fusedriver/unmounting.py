"""Unmounting: asks the driver, falls back on fusermount3, cleans up what a dead driver left; may be repeated.

Whoever unmounts, and whoever else did so before, the driver has let go of the image when this returns: it may be
evicted from the cache then.
"""

from __future__ import annotations

import enum
from pathlib import Path

from oscirc_blockstore.errors import BusyError, LocalError, UsageError
from oscirc_fusedriver import control_client, kernel, mountpoints, processes, records
from oscirc_remote.deadlines import Deadline

TIMEOUT_S = 15.0


class Outcome(enum.Enum):
    """What `unmount` found and did."""

    UNMOUNTED = "unmounted; the driver has ended"
    DETACHED = "in use: detached; the driver ends with the last close"
    CLEANED = "its driver was dead: cleaned up"
    NOT_MOUNTED = "nothing of oscirc was mounted there"


def unmount(mountpoint: Path, *, lazy: bool = False, timeout_s: float = TIMEOUT_S) -> Outcome:
    """End the mount at `mountpoint` and wait for its driver's end.

    Raises `BusyError` when files are open and `lazy` is off, `UsageError` when another file system is mounted there,
    `LocalError` in fusermount3's words, or when it is unmounted but its driver does not end in time.
    """
    deadline = Deadline.after(timeout_s)
    place = records.real_path(mountpoint)
    record = records.find_at(place)
    if record is None or not record.process.alive():
        return _without_driver(place, deadline, lazy=lazy)
    try:
        detached = control_client.ask_to_unmount(record, lazy=lazy, timeout_s=timeout_s / 2)
    except control_client.NoAnswerError:
        detached = _by_force_of_the_kernel(place, lazy=lazy)
    if detached:
        return Outcome.DETACHED
    if not record.process.wait(max(0.0, deadline.remaining_s())):
        raise LocalError(
            f"{place} is unmounted, but its driver (pid {record.pid}) still runs after {timeout_s:g} s",
            hint=f"see {record.log}; end it with: kill {record.pid}",
        )
    record.remove()
    return Outcome.UNMOUNTED


def clean_all_stale() -> list[Path]:
    """Take away every dead mount that a record names; returns where they were. What cannot be cleaned is left."""
    cleaned = []
    for record in records.list_records():
        place = Path(record.mountpoint)
        try:
            if not record.process.alive():
                with records.claimed(place):
                    cleaned += [place] if mountpoints.clean_stale(place) else []
        except LocalError:
            continue
    return cleaned


def _without_driver(place: Path, deadline: Deadline, *, lazy: bool) -> Outcome:
    entry = mountpoints.entry_at(place)
    if entry is not None and entry.kind != mountpoints.KIND:
        raise UsageError(f"{place} is a mount of {entry.kind}, not of oscirc", hint=f"umount {place}")
    if entry is not None and not mountpoints.is_dead(place):
        detached = _by_force_of_the_kernel(place, lazy=lazy)  # of ours by its kind, recorded elsewhere
        return Outcome.DETACHED if detached else Outcome.UNMOUNTED
    with records.claimed(place, deadline=deadline):  # somebody else may have unmounted it, whose driver still ends
        return Outcome.CLEANED if mountpoints.clean_stale(place) else Outcome.NOT_MOUNTED


def _by_force_of_the_kernel(place: Path, *, lazy: bool) -> bool:
    """Without the driver's help; whether it was detached rather than unmounted."""
    entry = mountpoints.entry_at(place)
    if entry is None or entry.kind != mountpoints.KIND:
        return False  # it was unmounted while we asked
    problem = kernel.unmount_now(place)
    if not problem or mountpoints.entry_at(place) is None:
        return False  # by us, or by somebody else while we tried
    if not kernel.is_busy(problem):
        raise LocalError(f"cannot unmount {place}: {problem}")
    if not lazy:
        users = processes.users_of(place)
        raise BusyError(f"{place} is in use" + (f" by {', '.join(users)}" if users else ""), hint="umount --lazy")
    problem = kernel.unmount_now(place, lazy=True)
    if problem:
        raise LocalError(f"cannot detach {place}: {problem}")
    return True
