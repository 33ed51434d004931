"""What a recording leaves when its process is killed, and how the next one takes it away.

A recording works in a directory of its own, in the temporary one: `oscirc-record-<pid>-<start ticks>-<random>`, with
the mount `mnt` and the trace in it. The name tells whose it is by process identity, so that there is no moment at which
it is nobody's, and neither a living process's nor an unnamed one is ever taken for a dead one's. The guest on that
mount and the mount's record name the same directory; they are found by it even when the directory is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc.output import say, warn
from oscirc_blockstore.errors import BusyError, LocalError, OscircError
from oscirc_fusedriver.processes import ProcessIdentity

if TYPE_CHECKING:
    from oscirc_vmlaunch.instances import Instance

MOUNT = "mnt"
GUEST_PREFIX = "record-"
_PREFIX = "oscirc-record-"
_NAME = re.compile(r"oscirc-record-(\d{1,10})-(\d{1,20})-\w+")


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A directory that is this process's until the block ends."""
    me = ProcessIdentity.current()
    work = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{me.pid}-{me.start_ticks}-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def owner_of(work: Path) -> ProcessIdentity | None:
    """Whose directory this is; None where it is no recording's."""
    match = _NAME.fullmatch(work.name)
    return None if match is None else ProcessIdentity(int(match[1]), int(match[2]))


def sweep() -> None:
    """End and remove what recordings of this user left whose process is dead; what resists is told and left."""
    guests = _guests()
    for work in sorted({*_directories(), *guests, *_mounted()}):
        owner = owner_of(work)
        if owner is None or owner.alive():
            continue
        try:
            for guest in guests.get(work, ()):
                _end(guest)
            _unmount(work / MOUNT)
            if work.exists():
                shutil.rmtree(work)
        except (OscircError, OSError) as error:
            warn(f"{work}, which a recording left that was killed, could not be removed: {error}")
        else:
            say(f"removed what a recording had left that was killed: {work}")


def _directories() -> Iterator[Path]:
    """Those of this user in the temporary directory."""
    for work in Path(tempfile.gettempdir()).resolve().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if work.lstat().st_uid == os.getuid() and not work.is_symlink():
                yield work


def _guests() -> dict[Path, list[Instance]]:
    """The guests of recordings, by the directory that they work in."""
    from oscirc_vmlaunch.instances import Instances

    found: dict[Path, list[Instance]] = {}
    for instance in Instances().load_all():
        if instance.name.startswith(GUEST_PREFIX) and instance.record.ephemeral:
            found.setdefault(Path(instance.record.mount_point).parent, []).append(instance)
    return found


def _mounted() -> Iterator[Path]:
    from oscirc_fusedriver import records

    for record in records.list_records():
        if Path(record.mountpoint).name == MOUNT:
            yield Path(record.mountpoint).parent


def _end(guest: Instance) -> None:
    from oscirc import composition
    from oscirc_vmlaunch import launching
    from oscirc_vmlaunch.instances import Instances

    fail_reads = composition.reads_failer(guest.record.mount_point)
    asyncio.run(launching.stop(guest, timeout_s=0, fail_reads=fail_reads))
    if guest.directory.exists():
        Instances().remove(guest.name)


def _unmount(mountpoint: Path) -> None:
    from oscirc_fusedriver import mountpoints, unmounting

    with contextlib.suppress(BusyError):
        unmounting.unmount(mountpoint)
    if mountpoints.entry_at(mountpoint) is not None:
        unmounting.unmount(mountpoint, lazy=True)
    if mountpoints.entry_at(mountpoint) is not None:
        raise LocalError(f"{mountpoint} is still mounted")
