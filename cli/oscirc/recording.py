"""Recording boots: a mount that sees every read, a throw-away guest on it, and what it touched until its prompt.

Runs differ in memory and processors, so that the merged profile holds what every boot wants rather than what one
machine happened to do. Nothing of a run is kept but its trace, and of the last one, where it is asked for, what its
display showed at the end: only that run has a display. What a recording left that was killed, the next one removes
(`recording_leftovers`).
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from oscirc import output_places, recording_leftovers, recording_progress, recording_terminal
from oscirc.output import say, warn
from oscirc_blockstore import trace
from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError, OscircError
from oscirc_blockstore.profile import Profile, merge

if TYPE_CHECKING:
    from oscirc.output import Bar
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.manifest import SystemFacts
    from oscirc_blockstore.png_making import Picture
    from oscirc_fusedriver.readers import MountOptions, PreparedImage
    from oscirc_publisher.disks import DiskFormat
    from oscirc_vmlaunch.accelerators import Request
    from oscirc_vmlaunch.launching import RunningMachine
    from oscirc_vmlaunch.machine import Display, FirmwareKind

LOGIN = "login:"
MACHINES = ((1024, 2), (2048, 1), (1536, 2), (3072, 1))
"""Memory in MiB and processors of the runs, over again for more."""
_CONSOLE_TAIL = 500
Screen = Callable[["Picture"], object]
"""Is given what the display of the last run showed."""
UNMOUNT_S = 60.0


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """How to record. `until` is a regular expression on the serial console; `settle_s` goes on for so long after it.

    `interactive`: neither counts, nor `timeout_s`; the console is this terminal, and who sits there ends it.
    """

    name: str = "boot"
    until: str = LOGIN
    settle_s: float = 3.0
    runs: int = 2
    timeout_s: float = 300.0
    accelerator: str = "auto"
    memory_mib: int | None = None
    cpus: int | None = None
    keep_traces: Path | None = None
    interactive: bool = False
    display: Display = "none"

    def machine(self, run: int, minimum_memory_mib: int) -> tuple[int, int]:
        """Memory (MiB) and processors of a run."""
        memory, cpus = MACHINES[run % len(MACHINES)]
        return self.memory_mib or max(memory, minimum_memory_mib), self.cpus or cpus


@dataclass(frozen=True, slots=True)
class Watch:
    """What a run moves while it waits for its prompt."""

    bar: Bar
    touched: recording_progress.Touched


def prepare_disk(disk: Path, declared: DiskFormat | None, block_size: int) -> PreparedImage:
    """A disk on this machine as something to boot and record; to be called in the driver's process."""
    from oscirc_blockstore.digests import ZERO_DIGEST
    from oscirc_fusedriver.local_reader import LocalReader
    from oscirc_fusedriver.readers import MountDescription, PreparedImage
    from oscirc_publisher.disks import open_disk

    description = MountDescription("", str(disk), ZERO_DIGEST.hex(), "", "")
    return PreparedImage(LocalReader(open_disk(disk, declared)), description, block_size)


def record(
    prepare: Callable[[MountOptions], PreparedImage],
    system: SystemFacts,
    manifest_digest: Digest,
    block_size: int,
    options: RecordingOptions,
    screen: Screen | None = None,
) -> Profile:
    """Boot what `prepare` opens, several times, and merge what the boots touched.

    `screen` is not called, and the user is told why, where no picture can be had.
    SIGTERM and SIGHUP end it as Ctrl-C does: guest, mount and traces go.
    """
    if options.keep_traces is not None:
        output_places.check_directory(options.keep_traces)
    recording_leftovers.sweep()
    with _ended_by_signals():
        return merge(list(_runs(prepare, system, manifest_digest, block_size, options, screen)))


def _runs(
    prepare: Callable[[MountOptions], PreparedImage],
    system: SystemFacts,
    manifest_digest: Digest,
    block_size: int,
    options: RecordingOptions,
    screen: Screen | None,
) -> Iterator[Profile]:
    for number in range(options.runs):
        memory, cpus = options.machine(number, system.minimum_memory_mib)
        ends = recording_terminal.UNTIL if options.interactive else f"until {options.until!r} is shown"
        say(f"run {number + 1} of {options.runs}: {memory} MiB, {cpus} processors; {ends}")
        with recording_leftovers.private_directory() as work:
            file = work / "trace"
            try:
                seen_by = screen if number == options.runs - 1 else None
                touched = recording_progress.Touched(file, block_size)
                with contextlib.ExitStack() as shown:
                    watch = None
                    if not options.interactive:  # else the terminal is the guest's
                        bar = shown.enter_context(recording_progress.bar_for(f"run {number + 1}"))
                        watch = Watch(bar, touched)
                    _run(prepare, system, work / recording_leftovers.MOUNT, file, memory, cpus, options, seen_by, watch)
            except OscircError as error:
                error.args = (f"run {number + 1} ({memory} MiB, {cpus} processors): {error}",)
                raise
            if not trace.ends(file):
                raise LocalError(
                    f"the trace of run {number + 1} is not whole: it would make a profile that lacks what came later",
                    hint=f"is there room in {work.parent}?",
                )
            with file.open(encoding="ascii", errors="replace") as lines:
                _, reads = trace.parse(lines)
                positions = trace.first_touch_order(reads, block_size)
            if options.keep_traces is not None:
                _keep(file, options.keep_traces / f"{options.name}-{memory}m-{cpus}c-{number + 1}.trace")
        say(f"  {len(positions)} blocks touched")
        yield Profile(manifest_digest, options.name, 1, tuple(positions))


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _keep(file: Path, place: Path) -> None:
    """Keep a trace. The directory took files when the recording began: if not any more, the profile is worth more."""
    try:
        shutil.copyfile(file, place)
    except OSError as error:
        warn(f"the trace could not be kept as {place}: {error.strerror}")


def _run(
    prepare: Callable[[MountOptions], PreparedImage],
    system: SystemFacts,
    mountpoint: Path,
    file: Path,
    memory: int,
    cpus: int,
    options: RecordingOptions,
    screen: Screen | None,
    watch: Watch | None,
) -> None:
    import asyncio

    from oscirc_fusedriver import mounting, unmounting
    from oscirc_fusedriver.readers import MountOptions

    mountpoint.mkdir()
    chosen = MountOptions(direct_io=True, trace=file)
    mounted = mounting.mount(lambda: prepare(chosen), mountpoint, options=chosen)
    try:
        asyncio.run(_boot(mounted.disk, mounted.manifest_digest, system, memory, cpus, options, screen, watch))
    finally:
        try:
            # waits for the driver's end, and so for the whole trace: reads that a busy disk has not answered come first
            unmounting.unmount(mountpoint, timeout_s=UNMOUNT_S)
        except BusyError:
            unmounting.unmount(mountpoint, lazy=True)


async def _boot(
    disk: Path,
    manifest_digest: str,
    system: SystemFacts,
    memory: int,
    cpus: int,
    options: RecordingOptions,
    screen: Screen | None,
    watch: Watch | None = None,
) -> None:
    """A guest that nobody keeps, from its start to `settle_s` after its prompt, when its display is looked at."""
    import asyncio

    from oscirc_vmlaunch import console, launching
    from oscirc_vmlaunch.instances import Instances
    from oscirc_vmlaunch.records import InstanceRecord

    instance = Instances().create(
        InstanceRecord(
            name=f"{recording_leftovers.GUEST_PREFIX}{secrets.token_hex(4)}",
            remote="",
            reference="",
            manifest_digest=manifest_digest,
            version="",
            firmware=cast("FirmwareKind", system.firmware),
            architecture=system.architecture,
            memory_mib=memory,
            cpus=cpus,
            accelerator=cast("Request", options.accelerator),
            mount_point=str(disk.parent),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            port_forwards=(),
            ephemeral=True,
        )
    )
    try:
        machine = await launching.start(
            instance,
            disk,
            manifest_digest=manifest_digest,
            display=options.display,
            graphics=screen is not None,
            paused=options.interactive,
        )
        try:
            if options.interactive:
                await recording_terminal.stay(machine)
                return
            async with _shown(watch, instance.console_log):
                await console.wait_for_text(
                    instance.console_log, options.until, deadline_s=options.timeout_s, alive=machine.alive
                )
                await asyncio.sleep(options.settle_s)
            if screen is not None:
                await _look(machine, screen)
        except OscircError as error:
            if options.interactive:
                raise
            raise DeadlineExceededError(
                f"the guest did not show {options.until!r}: {error}",
                hint=f"its console ended with: {_tail(instance.console_log)!r}; another --until or --timeout may help",
            ) from None
        finally:
            await asyncio.shield(launching.stop(instance, timeout_s=0))
    finally:
        with contextlib.suppress(OscircError):
            Instances().remove(instance.name)


@contextlib.asynccontextmanager
async def _shown(watch: Watch | None, console_log: Path) -> AsyncIterator[None]:
    """Show what the boot does until the block ends; what fails in showing it hinders nothing."""
    import asyncio

    if watch is None:
        yield
        return
    showing = asyncio.ensure_future(recording_progress.show(watch.bar, watch.touched, console_log))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _look(machine: RunningMachine, screen: Screen) -> None:
    """Hand the display's picture on: one that cannot be had is no reason to lose the recording."""
    from oscirc_vmlaunch import screendumps

    try:
        picture = await screendumps.take(machine)
    except OscircError as error:
        warn(f"no screenshot: {error}")
    else:
        screen(picture)


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-_CONSOLE_TAIL:].strip()
    return ""
