"""The supervisor of a running machine: what happens while the network is gone.

A read that the driver cannot answer in time fails; QEMU then pauses the guest (`rerror=stop`), whose clock stands
still and which never learns of it. The supervisor says so, lets the guest try again with growing pauses between, and
says when it runs again. Rules:

- Only a guest that stopped because of its disk (`io-error`) is resumed; one that a user paused stays paused.
- Running again means that a request of the disk has succeeded, not that QEMU was told `cont`.
- With `storage_ready` the guest is only let run when that says yes, so that its clock stands still for the whole time.
- With `explain` whoever serves the disk says why a read failed; empty words leave it to QEMU's.
- It holds the monitor made for it (watch.sock) and leaves the one for commands free.
- The console's log is kept bounded here, because nobody else is there to do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from oscirc_blockstore.errors import DeadlineExceededError
from oscirc_vmlaunch import qmp
from oscirc_vmlaunch.launching import RunningMachine
from oscirc_vmlaunch.machine import DISK_DEVICE

CONSOLE_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_IDLE_S = 30.0
_POLL_S = 0.25
_RECONNECT_S = 0.5


class Happening(Enum):
    """What the supervisor reports."""

    PAUSED = "paused"
    RUNNING_AGAIN = "running again"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Report:
    """One happening, in words for the user; `seconds` is how long the guest was paused."""

    happening: Happening
    message: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """The pauses between two tries: the first, and the longest; each is twice the one before. Seconds."""

    first_s: float = 0.5
    longest_s: float = 5.0


async def watch(
    machine: RunningMachine,
    report: Callable[[Report], None],
    *,
    storage_ready: Callable[[], Awaitable[bool]] | None = None,
    explain: Callable[[], Awaitable[str]] | None = None,
    patience: Patience | None = None,
) -> None:
    """Supervise a machine until its QEMU ends. Cancelling it leaves the machine as it is."""
    supervision = _Supervision(report, storage_ready, explain, patience or Patience())
    supervising = asyncio.ensure_future(_keep_supervising(machine, supervision))
    ending = asyncio.ensure_future(machine.wait())
    try:
        await asyncio.wait([supervising, ending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (supervising, ending):
            task.cancel()
        outcomes = await asyncio.gather(supervising, ending, return_exceptions=True)
    if isinstance(outcomes[0], Exception):
        raise outcomes[0]
    report(Report(Happening.ENDED, "the machine has ended"))


async def _keep_supervising(machine: RunningMachine, supervision: _Supervision) -> None:
    """Supervise for ever, connecting again when QEMU was too busy to answer."""
    while True:
        with contextlib.suppress(qmp.DisconnectedError, DeadlineExceededError):
            async with qmp.connect(machine.instance.watch_socket) as monitor:
                await supervision.run(monitor, machine.instance.console_log)
        await asyncio.sleep(_RECONNECT_S)


class _Supervision:
    """What is remembered from one event to the next, and over a lost connection."""

    def __init__(
        self,
        report: Callable[[Report], None],
        storage_ready: Callable[[], Awaitable[bool]] | None,
        explain: Callable[[], Awaitable[str]] | None,
        patience: Patience,
    ) -> None:
        self._report = report
        self._storage_ready = storage_ready
        self._explain = explain
        self._patience = patience
        self._fault: dict[str, object] = {}
        self._paused_at: float | None = None
        self._before: qmp.BlockStatistics | None = None  # when the guest was found paused, or last let run

    async def run(self, monitor: qmp.Monitor, console_log: Path) -> None:
        """Until the monitor is closed."""
        while True:
            status = await monitor.status()
            if status == "io-error" or self._paused_at is not None:
                await self._see_through(monitor, status)
            event = await monitor.next_event(deadline_s=_IDLE_S)
            if event is not None:
                self._note(event)
            _bound(console_log, CONSOLE_LOG_LIMIT_BYTES)

    async def _see_through(self, monitor: qmp.Monitor, status: str) -> None:
        """From a paused guest to one whose disk works again, or that somebody else took over.

        One that was let run when the monitor was lost is seen through on the next.
        """
        for event in monitor.pending_events():
            self._note(event)
        if self._paused_at is None:
            self._before = await monitor.block_statistics(DISK_DEVICE)
            self._paused_at = time.monotonic()
            self._report(Report(Happening.PAUSED, await self._reason()))
        if status != "io-error":
            status = await self._try(monitor)
        pause_s = self._patience.first_s
        while status == "io-error":
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._patience.longest_s)
            if self._storage_ready is None or await self._storage_ready():
                status = await self._try(monitor)
        seconds = time.monotonic() - self._paused_at
        self._fault, self._paused_at, self._before = {}, None, None
        if status == "running":
            self._report(Report(Happening.RUNNING_AGAIN, f"the guest runs again after {seconds:.0f} s", seconds))

    async def _reason(self) -> str:
        """Why the guest is paused; a read that failed is explained by who serves the disk, if that knows."""
        if self._explain is not None and self._fault.get("operation") != "write" and not self._fault.get("nospace"):
            explained = await self._explain()
            if explained:
                return f"paused: {explained}"
        return _reason(self._fault)

    async def _try(self, monitor: qmp.Monitor) -> str:
        """Let a guest run that stopped at its disk: QEMU's state once a request succeeded or failed again."""
        if await monitor.status() == "io-error":
            self._before = await monitor.block_statistics(DISK_DEVICE)
            await monitor.resume()
        while True:
            status = await monitor.status()
            if status != "running" or await self._has_succeeded(monitor):
                return status
            event = await monitor.next_event(deadline_s=_POLL_S)
            if event is not None:
                self._note(event)

    async def _has_succeeded(self, monitor: qmp.Monitor) -> bool:
        """Whether a request like the one that failed has, since the guest was last let run."""
        now, before = await monitor.block_statistics(DISK_DEVICE), self._before
        if before is None:
            return False
        if self._fault.get("operation") == "write":
            return now.writes > before.writes
        return now.reads > before.reads

    def _note(self, event: qmp.Event) -> None:
        if event.name == "BLOCK_IO_ERROR":
            self._fault = event.data


def _reason(fault: dict[str, object]) -> str:
    """Why the guest was paused. QEMU says which operation failed, and whether for lack of space."""
    if fault.get("nospace"):
        return "paused: this machine's disk is full; the guest goes on by itself once there is room"
    if fault.get("operation") == "write":
        return f"paused: the guest cannot write ({fault.get('reason', 'no reason given')}); trying again"
    return "paused: the image cannot be read, the network seems to be gone; the guest goes on by itself when it is back"


def _bound(log: Path, limit_bytes: int) -> None:
    """Set aside what a log has grown beyond its limit. QEMU appends, so an emptied log goes on from its start."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > limit_bytes:
            kept = log.with_name(f"{log.name}.old")
            kept.write_bytes(log.read_bytes()[-limit_bytes:])
            with log.open("r+b") as file:
                file.truncate(0)
