"""QEMU's monitor, as the few things this room says to it. A thin layer over `qemu.qmp`.

- Every call has a deadline, and whatever goes wrong leaves as an error of our tree: DeadlineExceededError when QEMU
  does not answer (it hangs in storage, or another program holds this monitor: a socket serves one client at a time),
  LocalError with QEMU's own words when it refuses, DisconnectedError when it went away.
- Events are queued from the moment of connecting, the oldest dropped beyond a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from qemu.qmp import EventListener, ExecInterruptedError, ExecuteError, Message, QMPClient, QMPError, Runstate

from oscirc_blockstore.errors import DeadlineExceededError, LocalError
from oscirc_vmlaunch import sockets

COMMAND_DEADLINE_S = 5.0
_QUEUED_EVENTS = 256
_WATCHED_EVENTS = ("BLOCK_IO_ERROR", "STOP", "RESUME", "SHUTDOWN")


class DisconnectedError(LocalError):
    """QEMU closed its monitor: it ended, or it is ending."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that QEMU reported by itself, such as STOP or BLOCK_IO_ERROR, with its data."""

    name: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """What the guest's disk did since the start; only requests that succeeded count."""

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


class _Listener(EventListener):
    """The library's listener keeps all events for ever; this one keeps the last few that nobody fetched yet."""

    def __init__(self) -> None:
        super().__init__(_WATCHED_EVENTS)
        self.waiting: deque[Event] = deque(maxlen=_QUEUED_EVENTS)
        self.arrived = asyncio.Event()

    async def put(self, event: Message) -> None:
        if self.accept(event):
            data = event.get("data")
            self.waiting.append(Event(str(event["event"]), data if isinstance(data, dict) else {}))
            self.arrived.set()


class Monitor:
    """A connected monitor. Made by `connect`."""

    def __init__(self, client: QMPClient, listener: _Listener) -> None:
        self._client = client
        self._listener = listener

    async def execute(
        self, command: str, arguments: dict[str, object] | None = None, *, deadline_s: float = COMMAND_DEADLINE_S
    ) -> object:
        """Run one command and return its result."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._client.execute(command, arguments)
        except TimeoutError as error:
            raise DeadlineExceededError(f"QEMU did not answer {command} in {deadline_s:g} s") from error
        except ExecuteError as error:
            raise LocalError(f"QEMU refused {command}: {error}") from error
        except (ExecInterruptedError, QMPError, OSError, EOFError) as error:
            raise DisconnectedError(f"QEMU went away during {command}") from error

    async def status(self) -> str:
        """QEMU's run state: `running`, `paused`, `io-error`, `prelaunch`, `shutdown`, …"""
        return str(_mapping(await self.execute("query-status")).get("status", "unknown"))

    async def power_down(self) -> None:
        """Press the guest's power button."""
        await self.execute("system_powerdown")

    async def pause(self, *, deadline_s: float = COMMAND_DEADLINE_S) -> None:
        """Stop the guest's clock and CPUs. QEMU waits for outstanding reads first."""
        await self.execute("stop", deadline_s=deadline_s)

    async def resume(self) -> None:
        """Let the guest run; requests that failed and were stopped at are tried again."""
        await self.execute("cont")

    async def quit(self, *, deadline_s: float = COMMAND_DEADLINE_S) -> None:
        """End QEMU, as if the plug were pulled. QEMU waits for outstanding reads first."""
        with contextlib.suppress(DisconnectedError):
            await self.execute("quit", deadline_s=deadline_s)

    async def screendump(self, file: Path, *, deadline_s: float = COMMAND_DEADLINE_S) -> None:
        """Have QEMU write what the guest's display shows, as PPM; it refuses where the guest has none."""
        await self.execute("screendump", {"filename": str(file)}, deadline_s=deadline_s)

    async def block_statistics(self, device: str) -> BlockStatistics:
        """The counters of the guest's disk with this qdev id."""
        entries = await self.execute("query-blockstats")
        for entry in cast("list[object]", entries if isinstance(entries, list) else []):
            fields = _mapping(entry)
            # virtio puts the back end of a disk below the device it belongs to: /machine/peripheral/ID/virtio-backend
            if device in str(fields.get("qdev", "")).split("/"):
                stats = _mapping(fields.get("stats"))
                return BlockStatistics(
                    reads=_count(stats, "rd_operations"),
                    read_bytes=_count(stats, "rd_bytes"),
                    writes=_count(stats, "wr_operations"),
                    written_bytes=_count(stats, "wr_bytes"),
                )
        raise LocalError(f"QEMU knows no disk {device}")

    async def disk_is_full(self, device: str) -> bool:
        """Whether a write of the guest's disk with this qdev id failed for lack of space and is waited for."""
        entries = await self.execute("query-block")
        for entry in cast("list[object]", entries if isinstance(entries, list) else []):
            fields = _mapping(entry)
            if device in str(fields.get("qdev", "")).split("/"):
                return fields.get("io-status") == "nospace"
        return False

    async def next_event(self, *, deadline_s: float) -> Event | None:
        """The next event, or None when none came in time; DisconnectedError once QEMU is gone and all are fetched."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while not self._listener.waiting:
                    await self._arrival()
        if self._listener.waiting:
            return self._listener.waiting.popleft()
        self._check_connected()
        return None

    def pending_events(self) -> list[Event]:
        """The events that have arrived and were not fetched."""
        events = list(self._listener.waiting)
        self._listener.waiting.clear()
        return events

    def _check_connected(self) -> None:
        if self._client.runstate is not Runstate.RUNNING:
            raise DisconnectedError("QEMU closed its monitor")

    async def _arrival(self) -> None:
        self._listener.arrived.clear()
        waits = [
            asyncio.ensure_future(self._listener.arrived.wait()),
            asyncio.ensure_future(self._client.runstate_changed()),
        ]
        try:
            await asyncio.sleep(0)  # both are waiting now: a change from here on is not missed, one before is seen
            self._check_connected()
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


@contextlib.asynccontextmanager
async def connect(path: Path, *, deadline_s: float = COMMAND_DEADLINE_S) -> AsyncIterator[Monitor]:
    """Connect to the monitor at `path` for the length of the block."""
    client, listener = QMPClient("oscirc"), _Listener()
    client.events.event_filter = lambda _: False  # the library's own listener cannot be removed, only kept empty
    client.register_listener(listener)
    try:
        async with asyncio.timeout(deadline_s):
            await client.connect(sockets.connect(path))
    except TimeoutError as error:
        raise DeadlineExceededError(
            f"QEMU's monitor did not answer in {deadline_s:g} s",
            hint="another oscirc command may be using it; try again",
        ) from error
    except (QMPError, OSError, EOFError) as error:
        raise DisconnectedError(f"QEMU closed its monitor: {error}") from error
    except AssertionError as error:  # the library asserts that nobody hangs up just after the greeting
        await _leave(client)
        raise DisconnectedError("QEMU closed its monitor") from error
    try:
        yield Monitor(client, listener)
    finally:
        await _leave(client)


async def _leave(client: QMPClient) -> None:
    with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
        async with asyncio.timeout(COMMAND_DEADLINE_S):
            await client.disconnect()


def _mapping(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _count(fields: dict[str, object], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) else 0
