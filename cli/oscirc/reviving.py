"""Gives a running guest its disk back after the driver that served it died: killed, out of memory, crashed.

The image is mounted again where it was, by an `oscirc mount` of its own (a driver is forked from a process without
threads, which a supervisor is not), and QEMU is moved onto it (`oscirc_vmlaunch.reattaching`). Whether that is needed
is read from the kernel each time: who supervises may be a newer process than who saw the driver die. Several guests on
one mount may do this at once: the first one mounts, the others find it busy, then there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc_blockstore.errors import DeadlineExceededError, LocalError

if TYPE_CHECKING:
    from oscirc_fusedriver.records import MountRecord
    from oscirc_vmlaunch.launching import RunningMachine

_MOUNT_S = 150.0
_END_S = 10.0
_WORDS = 500


async def give_disk_back(machine: RunningMachine) -> None:
    """Have the guest's image mounted and QEMU on that mount; does nothing where both are so.

    Raises `LocalError` when the image cannot be mounted again, `DeadlineExceededError` when that takes too long, and
    what `reattach` raises; then nothing has changed for the guest, and it can be tried again.
    """
    from oscirc_fusedriver import mountpoints, records
    from oscirc_vmlaunch.reattaching import reattach

    place = records.real_path(Path(machine.instance.record.mount_point))
    record = records.find_at(place)
    if record is None or not record.process.alive():
        await _mount_again(machine, place, record)
        record = records.find_at(place)
        if record is None:
            raise LocalError(f"nothing is mounted at {place}")
    if not await asyncio.to_thread(mountpoints.is_open_in, machine.process.pid, place):
        await reattach(machine, record.disk, manifest_digest=record.manifest_digest)


async def _mount_again(machine: RunningMachine, place: Path, dead: MountRecord | None) -> None:
    """Mount the very version that the guest stands on; what was verified for it needs no network for that."""
    from oscirc import updates
    from oscirc_blockstore.digests import parse_hex

    digest = parse_hex(machine.instance.record.manifest_digest)
    reference = replace(updates.following(machine.instance.record), version="", channel="", digest=digest)
    options = [] if dead is None else ["--deadline", str(dead.deadline_ms / 1000)]
    with contextlib.suppress(OSError):  # it is there, unless what was mounted automatically was tidied away
        await asyncio.to_thread(place.mkdir, mode=0o700)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oscirc", "mount", str(reference), str(place), "--allow-revoked", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    try:
        async with asyncio.timeout(_MOUNT_S):
            _, said = await process.communicate()
    except TimeoutError:
        raise DeadlineExceededError(f"{place} was not mounted again within {_MOUNT_S:.0f} s") from None
    finally:
        await asyncio.shield(_end(process))
    if process.returncode:
        words = " ".join(said.decode(errors="replace").split())[-_WORDS:]
        raise LocalError(f"cannot mount the image again: {words}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """A command that was given up takes its half-made mount away on SIGTERM."""
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), _END_S)
