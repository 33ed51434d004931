"""`oscirc boot`: resolve, mount if needed, make the overlay, start QEMU, and stay with it as the user asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from oscirc import mount_facts, notices, sharing, supervision
from oscirc.fetching_ahead import ahead_options, wish
from oscirc.options import Regex, Seconds, json_option
from oscirc.output import print_json, say, warn
from oscirc_blockstore.errors import OscircError

if TYPE_CHECKING:
    from oscirc_remote.references import Reference
    from oscirc_remote.resolving import Resolved
    from oscirc_vmlaunch.instances import Instance
    from oscirc_vmlaunch.launching import RunningMachine
    from oscirc_vmlaunch.watching import Report


@click.command()
@click.argument("what", metavar="REF|INSTANCE")
@click.option("--name", help="Name of the instance (default: the image's name).")
@click.option("--ephemeral", is_flag=True, help="Throw the instance away when it stops.")
@click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True)
@click.option("--memory", type=click.IntRange(1), help="Memory in MiB (default: 1024, or what the image needs).")
@click.option("--cpus", type=click.IntRange(1, 255), help="Processors (default: 2, or what this machine has).")
@click.option(
    "-p", "--port", "ports", multiple=True, metavar="HOST:GUEST", help="Forward a port of 127.0.0.1. Repeatable."
)
@click.option(
    "--data-disk",
    metavar="SIZE",
    help="A second disk of its own, such as 20G: stays across updates, reset and rollback.",
)
@click.option("--detach", is_flag=True, help="Return as soon as it runs.")
@click.option("--wait-for", type=Regex(), metavar="REGEX", help="Return when the console shows this.")
@click.option("--timeout", type=Seconds(), default=300.0, show_default=True, help="Seconds to wait for --wait-for.")
@click.option(
    "--deadline",
    type=Seconds(),
    default=10.0,
    show_default=True,
    help="Seconds that a read waits before the guest pauses.",
)
@click.option("--display", type=click.Choice(["none", "gtk", "sdl"]), default="none", show_default=True)
@click.option("--allow-revoked", is_flag=True, help="Boot a version that was withdrawn for security reasons.")
@ahead_options
@click.option(
    "--share-boot/--no-share-boot",
    default=None,
    help="Tell the repository which blocks a first boot reads, in which order (default: no, or as share_boots says).",
)
@click.option(
    "--save-boot",
    type=click.Path(path_type=Path),
    help="Write what --share-boot sends to this file; alone, send nothing.",
)
@json_option
def boot(
    what: str,
    *,
    name: str | None,
    ephemeral: bool,
    accel: str,
    memory: int | None,
    cpus: int | None,
    ports: tuple[str, ...],
    data_disk: str | None,
    detach: bool,
    wait_for: str | None,
    timeout: float,
    deadline: float,
    display: str,
    allow_revoked: bool,
    prefetch: bool | None,
    profile: str | None,
    fill: bool | None,
    fill_rate: str | None,
    share_boot: bool | None,
    save_boot: Path | None,
    as_json: bool,
) -> None:
    """Boot an image in QEMU, before it is downloaded. The serial console is this terminal; Ctrl-] leaves it running.

    The guest's writes go to the instance's own overlay. Given an instance's name, boots that one again, on the version
    that it has; when its channel means a newer one, that is said, and oscirc update moves it. When the network goes
    away, the guest pauses, and goes on by itself when it is back.

    \b
    Example:
      oscirc boot alice/debian
      oscirc boot alice/debian --name web -p 8080:80 --detach
    """
    from oscirc_blockstore.errors import UsageError
    from oscirc_fusedriver.readers import MountOptions
    from oscirc_remote.amounts import parse_size
    from oscirc_vmlaunch import layers
    from oscirc_vmlaunch.machine import PortForward

    if as_json and not (detach or wait_for):
        raise UsageError("--json tells of a guest that is left running", hint="add --detach, or --wait-for REGEX")
    started = time.monotonic()
    forwards = tuple(PortForward.parse(port) for port in ports)
    data_disk_bytes = None if data_disk is None else parse_size(data_disk)
    ahead = wish(prefetch=prefetch, profile=profile, fill=fill, fill_rate=fill_rate)
    shared = sharing.wish(share_boot=share_boot, save_boot=save_boot)
    reference, instance = _find(what, name)
    from oscirc import composition

    made = instance is None
    trace, options = None, MountOptions(deadline_s=deadline)
    if shared.send or shared.save is not None:  # whether it is recorded depends on what the reference means
        resolved = composition.resolve_to_boot(reference, ahead, allow_revoked=allow_revoked, tell=warn)
        trace = sharing.new_trace(shared, resolved, fresh=made)
        options = replace(options, trace=trace, trace_s=sharing.LIMIT_S)
        mounted = composition.mount_for_instance(resolved, options, ahead)
    else:
        mounted, resolved = composition.mount_by_reference(
            reference, options, ahead, allow_revoked=allow_revoked, tell=warn
        )
    if trace is not None and not trace.exists():
        trace = None
        if save_boot is not None:
            warn(f"this boot is not recorded: the disk is mounted already, on {mounted.mountpoint}")
    try:
        # not before: the driver's process is forked from one that has no other thread
        notice = None if instance is None else notices.begin(instance, allow_revoked=allow_revoked, began=started)
        if instance is None:
            instance = _create(resolved, name, mounted.disk.parent, accel, memory, cpus, forwards, ephemeral=ephemeral)
        if data_disk_bytes is not None:
            instance = asyncio.run(layers.add_data_disk(instance, data_disk_bytes))
        asyncio.run(
            _run(
                instance,
                mounted.disk,
                resolved,
                display=display,
                stay=not (detach or wait_for),
                wait_for=wait_for,
                timeout_s=timeout,
                started=started,
                as_json=as_json,
                boot_plan=None if trace is None else sharing.plan(shared, trace, resolved, instance),
                notice=notice,
            )
        )
    except OscircError:
        if made and instance is not None:
            _forget_if_never_started(instance)
        if trace is not None:
            sharing.forget(trace, instance)
        raise
    finally:
        composition.release_mount(str(mounted.disk.parent))


def _forget_if_never_started(instance: Instance) -> None:
    """An instance that this command made and QEMU refused would only be in the way of the next try."""
    from oscirc_vmlaunch import launching
    from oscirc_vmlaunch.instances import Instances

    if launching.find(instance) is None and not instance.console_log.exists():
        with contextlib.suppress(OscircError):
            Instances().remove(instance.name)


def _find(what: str, name: str | None) -> tuple[Reference, Instance | None]:
    """The disk that is meant, and the instance when there is one already."""
    from oscirc_blockstore.errors import NotFoundError, UsageError
    from oscirc_remote import references
    from oscirc_vmlaunch.instances import Instances

    if "/" in what:
        reference = references.parse(what)
        with contextlib.suppress(NotFoundError):
            if name is not None:
                known = Instances().load(name)
                return (_own_base(known) if _is_followed(reference, known) else reference), known
        return reference, None
    if name is not None:
        raise UsageError(f"{what!r} names an instance already", hint="give --name with a reference only")
    try:
        instance = Instances().load(what)
    except NotFoundError as error:
        raise NotFoundError(str(error), hint="oscirc ps lists instances; a reference is PUBLISHER/IMAGE") from None
    return _own_base(instance), instance


def _own_base(instance: Instance) -> Reference:
    """The very version that an instance stands on."""
    from oscirc import updates
    from oscirc_blockstore.digests import parse_hex

    followed = updates.following(instance.record)
    return replace(followed, version="", channel="", digest=parse_hex(instance.record.manifest_digest))


def _is_followed(reference: Reference, instance: Instance) -> bool:
    """Whether a reference names the channel that an instance follows: then it means that instance as it is."""
    from oscirc import updates

    followed = updates.following(instance.record)
    return bool(reference.channel) and followed == replace(reference, remote=reference.remote or followed.remote)


def _create(
    resolved: Resolved,
    name: str | None,
    mountpoint: Path,
    accel: str,
    memory: int | None,
    cpus: int | None,
    forwards: tuple[object, ...],
    *,
    ephemeral: bool,
) -> Instance:
    from oscirc_vmlaunch.accelerators import Request
    from oscirc_vmlaunch.instances import Instances
    from oscirc_vmlaunch.machine import FirmwareKind, PortForward, default_cpus, default_memory_mib
    from oscirc_vmlaunch.records import InstanceRecord

    instances = Instances()
    name = name or instances.unused_name(resolved.image)
    system = resolved.manifest.system
    return instances.create(
        InstanceRecord(
            name=name,
            remote=resolved.remote.name,
            reference=str(resolved.reference),
            manifest_digest=resolved.manifest_digest.hex(),
            version=resolved.version_label,
            firmware=cast("FirmwareKind", system.firmware),
            architecture=system.architecture,
            memory_mib=memory or default_memory_mib(system.minimum_memory_mib),
            cpus=cpus or default_cpus(),
            accelerator=cast("Request", accel),
            mount_point=str(mountpoint),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            port_forwards=cast("tuple[PortForward, ...]", forwards),
            ephemeral=ephemeral,
        )
    )


async def _run(
    instance: Instance,
    disk: Path,
    resolved: Resolved,
    *,
    display: str,
    stay: bool,
    wait_for: str | None,
    timeout_s: float,
    started: float,
    as_json: bool,
    boot_plan: sharing.Plan | None,
    notice: notices.Notice | None,
) -> None:
    from oscirc_vmlaunch import launching
    from oscirc_vmlaunch.machine import Display

    machine = await launching.start(
        instance,
        disk,
        manifest_digest=resolved.manifest_digest.hex(),
        display=cast("Display", display),
        paused=stay or notice is not None,
        is_here=await asyncio.to_thread(mount_facts.is_complete, str(disk.parent)),
    )
    if notice is not None:
        await _obey(notice, machine, resolved.warnings, stay=stay)
    if boot_plan is not None:
        sharing.start(boot_plan)
    login = resolved.manifest.system.default_login
    if stay:
        say(f"{instance.name}: {machine.accelerator.accelerator} ({machine.accelerator.reason})")
        await _stay(machine, login)
        return
    supervision.start(instance.name)
    if wait_for:
        await _wait(machine, wait_for, timeout_s)
    facts = {
        "name": instance.name,
        "image": f"{resolved.publisher}/{resolved.image}@{resolved.version_label}",
        "manifest": resolved.manifest_digest.hex(),
        "firmware": instance.record.firmware,
        "accelerator": machine.accelerator.accelerator,
        "accelerator_reason": machine.accelerator.reason,
        "pid": machine.process.pid,
        "newer_version": notice.newer or None if notice is not None else None,
        "seconds": round(time.monotonic() - started, 3),
    }
    if as_json:
        print_json(facts)
    else:
        say(f"{instance.name} runs ({facts['accelerator']}); attach with: oscirc console {instance.name}")


async def _obey(notice: notices.Notice, machine: RunningMachine, known: tuple[str, ...], *, stay: bool) -> None:
    """What is known by now of the guest's version, before it runs: it is let run, or ended."""
    from oscirc_vmlaunch import launching

    try:
        await asyncio.to_thread(notice.check, known)
        if not stay:
            async with machine.monitor() as monitor:
                await monitor.resume()
    except BaseException:
        await asyncio.shield(launching.stop(machine.instance, timeout_s=0))
        raise
    notice.tell((lambda line: say(f"\r\noscirc: {line}\r")) if stay else say)


async def _wait(machine: RunningMachine, wait_for: str, timeout_s: float) -> None:
    """Wait for the console's text. Interrupted: the machine that this command started ends with it."""
    from oscirc_blockstore.errors import DeadlineExceededError
    from oscirc_vmlaunch import console, launching

    name = machine.instance.name
    try:
        await console.wait_for_text(machine.instance.console_log, wait_for, deadline_s=timeout_s, alive=machine.alive)
    except DeadlineExceededError as error:
        raise DeadlineExceededError(
            str(error), hint=f"it still runs: look with oscirc console {name}, end it with oscirc stop {name}"
        ) from None
    except asyncio.CancelledError:
        await asyncio.shield(launching.stop(machine.instance, timeout_s=0))
        raise


async def _stay(machine: RunningMachine, login: str) -> None:
    """The console in this terminal, the supervisor beside it."""
    from oscirc_vmlaunch import console, launching

    instance = machine.instance
    say(f"Ctrl-] leaves it running.{f' Log in: {login}.' if login else ''}")

    async def let_run() -> None:
        async with machine.monitor() as monitor:
            await monitor.resume()

    supervisor = asyncio.ensure_future(supervision.watch(machine, tell))
    try:
        ended = await console.attach(instance.console_socket, attached=let_run)
    except asyncio.CancelledError:
        await asyncio.shield(launching.stop(instance, timeout_s=0))
        raise
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
    if ended is console.Ended.DETACHED:
        supervision.start(instance.name)
        say(f"\r\n{instance.name} goes on; attach with: oscirc console {instance.name}")
        return
    await machine.wait(10)
    await launching.stop(instance, timeout_s=0)  # removes an ephemeral one
    say(f"\r\n{instance.name} has ended")


def tell(report: Report) -> None:
    """What the supervisor sees, for the terminal."""
    say(f"\r\noscirc: {report.message}\r")
