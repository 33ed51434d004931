"""Keeps a guest through an outage: `oscirc_vmlaunch.watching`, told by the driver of its disk what is the matter.

- A guest that is paused for want of the network is let run only when the driver has what its read waited for, so its
  clock stands still for the whole outage and it never asks in vain.
- The reason it is told with is the driver's: since when the network is gone, and which answer was the last.
- A driver that died is started anew, and the guest moved onto its mount (`reviving`); what hinders that is reported.
- A driver that does not answer (it is of an older version, say): QEMU tries, and finds out by itself.
- What a supervisor without a terminal reports stands in the instance's `supervisor.log`, bounded; whoever attaches to
  the console follows it there.
- One process supervises an instance, so starting another is always harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from oscirc import mount_facts, pause, reviving
from oscirc_blockstore.errors import OscircError

if TYPE_CHECKING:
    from oscirc_vmlaunch.instances import Instance
    from oscirc_vmlaunch.launching import RunningMachine
    from oscirc_vmlaunch.watching import Report

LOG_NAME, LOCK_NAME = "supervisor.log", "supervisor.lock"
LOG_BYTES = 256 * 1024
_FOLLOW_S = 0.5


async def watch(machine: RunningMachine, report: Callable[[Report], None]) -> None:
    """Supervise a machine until its end."""
    from oscirc_vmlaunch import watching
    from oscirc_vmlaunch.watching import Happening, Report

    place = machine.instance.record.mount_point
    hindrance = ""

    async def ready() -> bool:
        nonlocal hindrance
        try:
            await reviving.give_disk_back(machine)
        except OscircError as error:
            if str(error) != hindrance:
                hindrance = str(error)
                report(Report(Happening.PAUSED, f"still paused: {hindrance}; trying again"))
            return False
        hindrance = ""
        return await asyncio.to_thread(disk_answers, place)

    async def explain() -> str:
        return await asyncio.to_thread(why_reads_fail, place)

    await watching.watch(machine, report, storage_ready=ready, explain=explain)


def disk_answers(mountpoint: str) -> bool:
    """Whether a guest's failed read can be answered now; true where nobody can tell."""
    from oscirc_fusedriver import control_client, records

    record = records.find(Path(mountpoint))
    try:
        return record is None or control_client.retry(record)
    except OscircError:
        return True


def why_reads_fail(mountpoint: str) -> str:
    """What the driver of a guest's disk knows about it, in words; empty where it knows nothing."""
    facts = mount_facts.at(mountpoint)
    cause = pause.cause_of(pause.DISK, facts)
    return "" if cause == pause.DISK else pause.why(cause, facts)


def start(name: str) -> None:
    """A process of its own that supervises an instance after this one has ended; ends at once if there is one."""
    subprocess.Popen(
        [sys.executable, "-m", "oscirc.supervising", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )


@contextlib.contextmanager
def alone(instance: Instance) -> Iterator[bool]:
    """Whether this process is the instance's only supervisor, for the length of the block."""
    with (instance.directory / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def logged(instance: Instance) -> Iterator[Callable[[Report], None]]:
    """A report's way into the instance's log."""
    handler = RotatingFileHandler(instance.directory / LOG_NAME, maxBytes=LOG_BYTES, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(f"{__name__}.{instance.name}")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lambda report: logger.info("%s", report.message)
    finally:
        logger.removeHandler(handler)
        handler.close()


async def follow(log: Path, tell: Callable[[str], None]) -> None:
    """Tell every line that is added to a log from now on, until cancelled; one that became shorter begins anew."""
    at, rest = _size(log), b""
    while True:
        await asyncio.sleep(_FOLLOW_S)
        if _size(log) < at:
            at, rest = 0, b""
        with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(at)
            new = file.read(LOG_BYTES)
            at += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                tell(line.decode(errors="replace"))


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0
