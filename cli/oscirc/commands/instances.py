"""`oscirc ps | stop | console | log | rm`: the virtual machines of this workstation."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING

import click

from oscirc import mount_facts, pause, supervision
from oscirc.mount_facts import Facts
from oscirc.options import json_option
from oscirc.output import human_bytes, print_done, print_json, print_table, say

if TYPE_CHECKING:
    from oscirc_vmlaunch.console import Ended
    from oscirc_vmlaunch.instances import Instance


def load(name: str) -> Instance:
    """The instance of this name, or `NotFoundError`."""
    from oscirc_vmlaunch.instances import Instances

    return Instances().load(name)


async def facts_of(instance: Instance, mounted: Facts | None = None) -> Facts:
    """What `ps` and `status` say about one instance; its mount is asked where that matters, unless given."""
    from oscirc_vmlaunch import launching

    record = instance.record
    machine = launching.find(instance)
    condition = await launching.condition(instance)
    if mounted is None:
        mounted = mount_facts.at(record.mount_point) if condition.paused_by is launching.PausedBy.DISK else {}
    cause = pause.cause_of(condition.paused_by.value if condition.paused_by else "", mounted)
    return {
        "name": instance.name,
        "state": condition.state.value,
        "paused_by": cause,
        "state_in_words": pause.in_words(condition.state.value, cause, mounted),
        "image": record.reference,
        "version": record.version,
        "manifest": record.manifest_digest,
        "firmware": record.firmware,
        "memory_mib": record.memory_mib,
        "cpus": record.cpus,
        "accelerator": machine.accelerator.accelerator if machine else record.accelerator,
        "pid": machine.process.pid if machine else None,
        "ports": [str(forward) for forward in record.port_forwards],
        "ephemeral": record.ephemeral,
        "channel": _channel(record.reference),
        "data_disk_bytes": record.data_disk_bytes,
        "kept_versions": [layer.version for layer in record.kept],
        "mountpoint": record.mount_point,
        "directory": str(instance.directory),
    }


def _channel(reference: str) -> str | None:
    """The channel that an instance follows; None where it is pinned to a version."""
    from oscirc_blockstore.errors import NameRefusedError
    from oscirc_remote import references

    try:
        return references.parse(reference).channel or None
    except NameRefusedError:
        return None


async def facts_of_all() -> list[Facts]:
    """Those of every instance."""
    from oscirc_vmlaunch.instances import Instances

    return [await facts_of(instance) for instance in Instances().load_all()]


@click.command()
@json_option
def ps(*, as_json: bool) -> None:
    """List instances and what they are doing.

    \b
    Example:
      oscirc ps
    """
    found = asyncio.run(facts_of_all())
    if as_json:
        print_json({"instances": found})
    elif not found:
        say("no instances; make one with: oscirc boot PUBLISHER/IMAGE")
    else:
        found = [
            {
                **facts,
                "state": pause.briefly(str(facts["state"]), str(facts["paused_by"])),
                "image": re.split("[@#]", str(facts["image"]))[0],
                "follows": f"#{facts['channel']}" if facts["channel"] else "pinned",
            }
            for facts in found
        ]
        columns = ("name", "state", "image", "version", "follows", "accelerator", "memory_mib", "ports")
        rows = [[" ".join(v) if isinstance(v := fact[c], list) else str(v) for c in columns] for fact in found]
        print_table([column.upper() for column in columns], rows)


@click.command()
@click.argument("name")
@click.option(
    "--timeout", default=60.0, show_default=True, help="Seconds for the guest to shut down by itself; 0: none."
)
@json_option
def stop(name: str, timeout: float, *, as_json: bool) -> None:
    """Shut an instance down: its power button first, then by force.

    \b
    Example:
      oscirc stop web --timeout 20
    """
    from oscirc import composition
    from oscirc_vmlaunch import launching

    instance = load(name)
    fail_reads = composition.reads_failer(instance.record.mount_point)
    how = asyncio.run(launching.stop(instance, timeout_s=timeout, fail_reads=fail_reads))
    composition.release_mount(instance.record.mount_point)
    said = f"{name} was not running" if how is None else f"{name} stopped: {how.value}"
    print_done({"name": name, "stopped_by": None if how is None else how.value}, said, as_json=as_json)


@click.command()
@click.argument("name")
def console(name: str) -> None:
    """Attach the terminal to an instance's serial console; Ctrl-] detaches.

    \b
    Example:
      oscirc console web
    """
    from oscirc_blockstore.errors import UsageError
    from oscirc_vmlaunch import launching

    instance = load(name)
    if launching.find(instance) is None:
        raise UsageError(f"{name} is not running", hint=f"start it with: oscirc boot {name}")
    say("attached; Ctrl-] detaches")
    ended = asyncio.run(_attach(instance))
    say(f"\n{name}: {ended.value}")


async def _attach(instance: Instance) -> Ended:
    """The console, and beside it what the supervisor says; there is one after this, whatever became of an earlier."""
    from oscirc_vmlaunch import console as terminal

    async def attached() -> None:
        supervision.start(instance.name)
        facts = await facts_of(instance)
        if facts["paused_by"]:
            tell(str(facts["state_in_words"]))

    def tell(message: str) -> None:
        say(f"\r\noscirc: {message}\r")

    telling = asyncio.ensure_future(supervision.follow(instance.directory / supervision.LOG_NAME, tell))
    try:
        return await terminal.attach(instance.console_socket, log=instance.console_log, attached=attached)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


@click.command()
@click.argument("name")
def log(name: str) -> None:
    """Print all that came out of an instance's console since its last start.

    \b
    Example:
      oscirc log web | tail
    """
    from oscirc_blockstore.errors import NotFoundError

    instance = load(name)
    try:
        data = instance.console_log.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{name} has not been started yet") from None
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--force", is_flag=True, help="Stop it first, at once.")
@json_option
def rm(names: tuple[str, ...], *, force: bool, as_json: bool) -> None:
    """Remove instances with all they hold: overlay, data disk, and what updates set aside. It is gone for good.

    \b
    Example:
      oscirc rm web
    """
    from oscirc import composition
    from oscirc_blockstore.errors import NotFoundError, OscircError
    from oscirc_vmlaunch import launching
    from oscirc_vmlaunch.instances import Instances

    removed = []
    for name in names:
        try:
            instance: Instance | None = load(name)
        except NotFoundError:
            raise
        except OscircError:
            instance = None  # a damaged record: the folder can still be removed
        went = _what_goes(instance)
        if force and instance is not None:
            fail_reads = composition.reads_failer(instance.record.mount_point)
            asyncio.run(launching.stop(instance, timeout_s=0, fail_reads=fail_reads))
        if instance is None or instance.directory.exists():
            Instances().remove(name)
        if instance is not None:
            composition.release_mount(instance.record.mount_point)
        removed.append({"name": name, "and_with_it": went})
        more = f", and with it {' and '.join(went)}" if went else ""
        say(f"{name} removed{more}")
    if as_json:
        print_json({"removed": removed})


def _what_goes(instance: Instance | None) -> list[str]:
    """What goes with an instance besides the system that it has, in words."""
    from oscirc_vmlaunch import layers

    if instance is None:
        return []
    record, parts = instance.record, []
    if record.data_disk_bytes:
        parts.append(f"its data disk ({human_bytes(layers.room(instance.data_disk))})")
    if record.kept:
        size = sum(layers.occupied_bytes(instance, layer.number) for layer in record.kept)
        versions = ", ".join(layer.version or "?" for layer in record.kept)
        parts.append(f"what updates had set aside ({versions}: {human_bytes(size)})")
    return parts
