"""Starts an instance's QEMU and ends it again.

QEMU is started in a session of its own and outlives the command that started it. Its sockets are made here and
inherited as listening descriptors, so that connecting needs no polling: the connection waits in the kernel's queue
until QEMU serves it. The instance's lock is inherited too (see instances).

A start that fails or is cancelled ends the QEMU it started, shows the last of what QEMU said, and leaves nothing
behind of an ephemeral instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from oscirc_blockstore.errors import BusyError, DeadlineExceededError, LocalError, NotFoundError, OscircError
from oscirc_vmlaunch import accelerators, console, firmware, overlays, processes, programs, qmp, sockets
from oscirc_vmlaunch.accelerators import Choice
from oscirc_vmlaunch.instances import Instance, Instances, State, name_holder
from oscirc_vmlaunch.machine import (
    DATA_DEVICE,
    DISK_DEVICE,
    MACHINE_TYPES,
    Display,
    Endpoint,
    Flash,
    MachineSpec,
    build_arguments,
)
from oscirc_vmlaunch.processes import ProcessIdentity
from oscirc_vmlaunch.records import RunRecord

START_DEADLINE_S = 30.0
STOP_TIMEOUT_S = 60.0
_PRESS_AGAIN_S = 5.0
_QUIT_DEADLINE_S = 2.0
_FREED_QUIT_DEADLINE_S = 5.0
# A read that the driver has already taken over is waited for by the kernel even in a killed process.
_SIGNALS = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 15.0))
_FAILED_START_DEADLINE_S = 15.0
_STATUS_DEADLINE_S = 2.0


class StoppedBy(Enum):
    """How a machine came to its end."""

    POWER_BUTTON = "the guest shut down"
    QUIT = "QEMU was told to quit"
    SIGNAL = "QEMU was killed"


class PausedBy(Enum):
    """Why a guest is paused."""

    USER = "user"
    DISK = "disk"
    """Its disk could not be read or written: for want of the network, unless its mount knows another cause."""
    FULL_DISK = "full disk"


@dataclass(frozen=True, slots=True)
class Condition:
    """What an instance is doing, and why it is paused, if it is."""

    state: State
    paused_by: PausedBy | None = None


@dataclass(frozen=True, slots=True)
class RunningMachine:
    """An instance with its QEMU."""

    instance: Instance
    process: ProcessIdentity
    accelerator: Choice

    def alive(self) -> bool:
        """Whether this very QEMU still runs."""
        return self.process.alive()

    async def wait(self, deadline_s: float | None = None) -> bool:
        """Wait for QEMU's end, at most `deadline_s` seconds; whether it came."""
        return await self.process.wait(deadline_s)

    @contextlib.asynccontextmanager
    async def monitor(self, *, deadline_s: float = qmp.COMMAND_DEADLINE_S) -> AsyncIterator[qmp.Monitor]:
        """The monitor for commands; others wait while it is held, so keep it short."""
        async with qmp.connect(self.instance.command_socket, deadline_s=deadline_s) as monitor:
            yield monitor


def find(instance: Instance) -> RunningMachine | None:
    """The QEMU of an instance that some command started earlier, or None when it does not run."""
    run = instance.last_run()
    if run is None or not run.process.alive():
        return None
    return RunningMachine(instance, run.process, Choice(run.accelerator, run.accelerator_reason))


async def condition(instance: Instance) -> Condition:
    """What an instance is doing; a running one is asked whether it is paused, and why, in bounded time."""
    machine = find(instance)
    if machine is None:
        return Condition(instance.state())
    with contextlib.suppress(OscircError):
        async with machine.monitor(deadline_s=_STATUS_DEADLINE_S) as monitor:
            status = await monitor.status()
            if status == "io-error":
                with contextlib.suppress(OscircError):
                    if await monitor.disk_is_full(DISK_DEVICE) or await monitor.disk_is_full(DATA_DEVICE):
                        return Condition(State.PAUSED, PausedBy.FULL_DISK)
                return Condition(State.PAUSED, PausedBy.DISK)
            if status not in ("running", "shutdown"):
                return Condition(State.PAUSED, PausedBy.USER)
    return Condition(instance.state())


async def state(instance: Instance) -> State:
    """The same without a reason."""
    return (await condition(instance)).state


async def start(
    instance: Instance,
    disk: Path,
    *,
    manifest_digest: str,
    display: Display = "none",
    graphics: bool = False,
    paused: bool = False,
    secure_boot: bool = False,
    is_here: bool = False,
    deadline_s: float = START_DEADLINE_S,
) -> RunningMachine:
    """Start an instance on the mounted image's `disk.raw` (an absolute path), which has this manifest digest (hex).

    Returns when QEMU's monitor answers; with `paused` the guest waits for `Monitor.resume`, so that a console can be
    attached before its first word; `graphics` gives it a display even if nobody is shown it; `is_here` says that all of
    the image is on this machine, so that reading ahead fetches nothing. BusyError when the
    instance runs already, UsageError when the image is not the one that the instance was made on, MissingProgramError
    with what to install, LocalError with QEMU's own last words.
    """
    try:
        with instance.lock() as lock:
            instance = instance.reloaded()
            overlays.check_base(
                instance=instance.name, recorded_digest=instance.record.manifest_digest, offered_digest=manifest_digest
            )
            await _prepare_overlay(instance, disk)
            data_disk = _checked_data_disk(instance)
            qemu = programs.find_qemu(instance.record.architecture)
            choice = await accelerators.choose(instance.record.accelerator, qemu=qemu)
            flash = _prepare_firmware(instance, qemu, secure_boot=secure_boot)
            instance = instance.moved_to(disk.parent)
            with contextlib.ExitStack() as stack:
                listeners = [
                    stack.enter_context(sockets.listen(path))
                    for path in (instance.command_socket, instance.watch_socket, instance.console_socket)
                ]
                base = stack.enter_context(opened_for_a_guest(disk, is_here=is_here))
                specification = _specification(
                    instance,
                    disk=disk,
                    base_descriptor=base,
                    data_disk=data_disk,
                    qemu=qemu,
                    choice=choice,
                    flash=flash,
                    listeners=listeners,
                    display=display,
                    graphics=graphics,
                    paused=paused,
                )
                machine = _spawn(instance, specification, choice, inherited=[lock, base, *_descriptors(listeners)])
            await _await_monitor(machine, deadline_s)
            return machine
    except BaseException as error:
        if instance.record.ephemeral and not isinstance(error, BusyError):
            with contextlib.suppress(OscircError):
                Instances(instance.directory.parent).remove(instance.name)
        raise


async def stop(
    instance: Instance, *, timeout_s: float = STOP_TIMEOUT_S, fail_reads: Callable[[], None] | None = None
) -> StoppedBy | None:
    """End an instance: the power button, after `timeout_s` seconds (0: at once) QMP `quit`, then signals to its QEMU.

    `quit` waits for reads that hang in storage. Then, and only then, `fail_reads` is called (in a thread): whoever
    serves the disk has to fail them, for all its readers. An ephemeral instance is removed. None when it did not run.
    """
    machine = find(instance)
    how = None
    if machine is not None:
        how = await _end(machine, timeout_s, fail_reads)
    if instance.record.ephemeral:
        with contextlib.suppress(NotFoundError):  # whoever waited for its end was quicker
            Instances(instance.directory.parent).remove(instance.name)
    return how


async def _end(machine: RunningMachine, timeout_s: float, fail_reads: Callable[[], None] | None) -> StoppedBy:
    if timeout_s > 0 and await _press_power_button(machine, timeout_s):
        return StoppedBy.POWER_BUTTON
    if await _quit(machine, _QUIT_DEADLINE_S):
        return StoppedBy.QUIT
    if fail_reads is not None:
        await asyncio.to_thread(fail_reads)
        if await _quit(machine, _FREED_QUIT_DEADLINE_S):
            return StoppedBy.QUIT
    return await _kill(machine)


async def _quit(machine: RunningMachine, deadline_s: float) -> bool:
    """Tell QEMU to quit and wait for its end. One that hangs in storage has heard it, and ends as soon as it can."""
    deadline = time.monotonic() + deadline_s
    with contextlib.suppress(OscircError):
        async with machine.monitor(deadline_s=deadline_s) as monitor:
            await monitor.quit(deadline_s=deadline_s)
    return await machine.wait(max(0, deadline - time.monotonic()))


async def _press_power_button(machine: RunningMachine, timeout_s: float) -> bool:
    """Press until the guest is off: one that is still booting does not notice the first time."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OscircError):
            async with machine.monitor(deadline_s=min(left_s, qmp.COMMAND_DEADLINE_S)) as monitor:
                if await monitor.status() not in ("running", "shutdown"):
                    await monitor.resume()  # a paused guest sees no button
                await monitor.power_down()
        if await machine.wait(min(left_s, _PRESS_AGAIN_S)):
            return True
    return False


async def _kill(machine: RunningMachine) -> StoppedBy:
    for number, wait_s in _SIGNALS:
        machine.process.send(number)
        if await machine.wait(wait_s):
            return StoppedBy.SIGNAL
    raise DeadlineExceededError(
        f"QEMU (process {machine.process.pid}) does not end, even killed",
        hint="it hangs in a read of its disk: unmount the image with oscirc umount",
    )


async def _prepare_overlay(instance: Instance, disk: Path) -> None:
    base = instance.record.manifest_digest
    if instance.overlay.exists():
        overlays.check(instance.overlay, size_bytes=overlays.disk_size(disk), manifest_digest=base)
    else:
        await overlays.create(instance.overlay, disk, manifest_digest=base)


def _checked_data_disk(instance: Instance) -> Path | None:
    """The data disk, if the instance has one; one that is missing is not made anew in silence."""
    if not instance.record.data_disk_bytes:
        return None
    overlays.check_data_disk(instance.data_disk, size_bytes=instance.record.data_disk_bytes)
    return instance.data_disk


def _prepare_firmware(instance: Instance, qemu: Path, *, secure_boot: bool) -> Flash | None:
    found = firmware.find(
        instance.record.firmware,
        instance.record.architecture,
        secure_boot=secure_boot,
        folders=firmware.descriptor_folders(qemu),
    )
    return firmware.prepare(found, instance.variables)


def _specification(
    instance: Instance,
    *,
    disk: Path,
    data_disk: Path | None,
    qemu: Path,
    choice: Choice,
    flash: Flash | None,
    listeners: list[socket.socket],
    display: Display,
    graphics: bool,
    paused: bool,
    base_descriptor: int,
) -> MachineSpec:
    command, watch, terminal = _descriptors(listeners)
    return MachineSpec(
        name=instance.name,
        qemu=qemu,
        machine_type=MACHINE_TYPES[instance.record.firmware],
        accelerator=choice.accelerator,
        cpus=instance.record.cpus,
        memory_mib=instance.record.memory_mib,
        base=disk,
        overlay=instance.overlay,
        flash=flash,
        monitors=(Endpoint(instance.command_socket, command), Endpoint(instance.watch_socket, watch)),
        console=Endpoint(instance.console_socket, terminal),
        console_log=instance.console_log,
        pid_file=instance.pid_file,
        port_forwards=instance.record.port_forwards,
        display=display,
        graphics=graphics,
        paused=paused,
        data_disk=data_disk,
        base_descriptor=base_descriptor,
    )


def _spawn(instance: Instance, specification: MachineSpec, choice: Choice, *, inherited: list[int]) -> RunningMachine:
    for log in (instance.console_log, instance.qemu_log):
        log.unlink(missing_ok=True)
    process = processes.spawn_detached(build_arguments(specification), log=instance.qemu_log, inherited=inherited)
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        instance.write_run(RunRecord(process, choice.accelerator, choice.reason, str(specification.base), started))
        name_holder(inherited[0], process.pid)
    except BaseException:
        process.send(signal.SIGKILL)
        raise
    return RunningMachine(instance, process, choice)


async def _await_monitor(machine: RunningMachine, deadline_s: float) -> None:
    """Return when QEMU answers. When it does not, or the caller is cancelled, see to it that it is gone."""
    try:
        async with machine.monitor(deadline_s=deadline_s) as monitor:
            await monitor.status()
    except BaseException as error:
        machine.process.send(signal.SIGKILL)
        await asyncio.shield(machine.wait(_FAILED_START_DEADLINE_S))
        if isinstance(error, OscircError):
            raise _explain(machine, error) from error
        raise


def _explain(machine: RunningMachine, error: OscircError) -> OscircError:
    said = console.tail(machine.instance.qemu_log).decode(errors="replace").strip()
    hint = ""
    if "host forwarding" in said:
        hint = "that port of this machine is taken: choose another with -p HOST:GUEST"
    if isinstance(error, DeadlineExceededError):
        return DeadlineExceededError(f"{error}; it said: {said or 'nothing'}", hint=hint)
    return LocalError(f"QEMU did not start: {said or 'it said nothing'}", hint=hint)


@contextlib.contextmanager
def opened_for_a_guest(disk: Path, *, is_here: bool = False) -> Iterator[int]:
    """The descriptor of an image that QEMU is to read: the kernel reads nothing ahead of what is asked through it.

    Guests read ahead themselves. What the host's kernel adds crosses into blocks that nobody asked for, and each is a
    fetch: after an update of a Debian 12 that was booted before, 0.35 MB beside 3.6. Where all of the image is on this
    machine (`is_here`) it fetches nothing, and a boot asks the driver half as often: then the kernel is let.
    """
    try:
        descriptor = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LocalError(f"cannot open {disk}: {error.strerror}", hint="is the image still mounted?") from None
    try:
        if not is_here:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        yield descriptor
    finally:
        os.close(descriptor)


def _descriptors(listeners: list[socket.socket]) -> list[int]:
    return [listener.fileno() for listener in listeners]
