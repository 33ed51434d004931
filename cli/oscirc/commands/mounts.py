"""`oscirc mount | umount | status`: images as files, and what their drivers have done."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import Seconds, json_option
from oscirc.output import human_bytes, print_json, print_table, say, warn

if TYPE_CHECKING:
    from oscirc_fusedriver.readers import PreparedImage
    from oscirc_fusedriver.records import MountRecord


@click.command()
@click.argument("reference")
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.option("--foreground", is_flag=True, help="Stay here until it is unmounted (Ctrl-C unmounts).")
@click.option(
    "--deadline", type=Seconds(), default=10.0, show_default=True, help="Seconds that a read waits for the network."
)
@click.option("--allow-revoked", is_flag=True, help="Mount a version that was withdrawn for security reasons.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mount (needs user_allow_other).")
@click.option("--direct-io", is_flag=True, help="Keep the kernel's page cache out: to record what a guest asks for.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Record every read in this new file; implies --direct-io, and fetches nothing ahead.",
)
def mount(
    reference: str,
    mountpoint: Path,
    *,
    foreground: bool,
    deadline: float,
    allow_revoked: bool,
    allow_other: bool,
    direct_io: bool,
    trace: Path | None,
) -> None:
    """Mount an image: MOUNTPOINT/disk.raw, verified and fetched as it is read.

    MOUNTPOINT is an empty directory. Returns when the disk can be read. With a receipt of an earlier use it mounts
    without network too, with a warning.

    \b
    Example:
      mkdir debian && oscirc mount alice/debian debian && fdisk -l debian/disk.raw
    """
    from oscirc import composition
    from oscirc_fusedriver import mounting
    from oscirc_fusedriver.readers import MountOptions
    from oscirc_remote import references

    wanted = references.parse(reference)
    options = MountOptions(
        allow_other=allow_other,
        direct_io=direct_io or trace is not None,
        trace=trace.absolute() if trace is not None else None,
        deadline_s=deadline,
    )

    def prepare() -> PreparedImage:
        return composition.resolve_and_open(wanted, options, allow_revoked=allow_revoked, tell=warn)

    def ready(record: MountRecord) -> None:
        name = f"{record.image}@{record.version}" if record.version else record.image
        say(f"{name} is mounted: {record.disk}")

    mounting.mount(prepare, mountpoint, foreground=foreground, options=options, on_ready=ready)


@click.command()
@click.argument("mountpoints", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MOUNTPOINT…")
@click.option("--lazy", is_flag=True, help="Detach it although files are open; the driver ends with the last close.")
def umount(mountpoints: tuple[Path, ...], *, lazy: bool) -> None:
    """Unmount images. Harmless where nothing is mounted; cleans up after a driver that died.

    \b
    Example:
      oscirc umount debian
    """
    from oscirc_fusedriver import unmounting

    for mountpoint in mountpoints:
        say(f"{mountpoint}: {unmounting.unmount(mountpoint, lazy=lazy).value}")


def mount_facts(record: MountRecord) -> dict[str, object]:
    """What `status` says about one mount; asks its driver."""
    from oscirc_fusedriver import control_client

    status = control_client.status(record)
    reader, driver = status.reader, status.driver
    cache = reader["cache"]
    return {
        "mountpoint": record.mountpoint,
        "image": f"{record.image}@{record.version}" if record.version else record.image,
        "remote": record.remote,
        "manifest": record.manifest_digest,
        "pid": record.pid,
        "uptime_s": round(status.uptime_s, 1),
        "disk_bytes": reader["disk_size"],
        "needed_bytes": reader["bytes_needed"],
        "cached_bytes": reader["bytes_cached"],
        "needed_blocks": reader["blocks_needed"],
        "cached_blocks": reader["blocks_cached"],
        "surveyed": reader["surveyed"],
        "safe_to_unplug": reader["surveyed"] and reader["blocks_cached"] == reader["blocks_needed"],
        "fetched_bytes": reader["received_bytes"],
        "requests": reader["requests"],
        "demand_stalls": reader["demand_stalls"],
        "stalled_ms": reader["stalled_ms"],
        "worst_stall_ms": reader["worst_stall_ms"],
        "prefetched_blocks": cache["prefetched_blocks"],
        "prefetched_bytes": cache["prefetched_bytes"],
        "prefetch_hits": cache["prefetch_hits"],
        "prefetch_waste": cache["prefetched_blocks"] - cache["prefetch_hits"],
        "prefetch": reader["prefetch"],
        "failed_reads": reader["failed_reads"],
        "damaged": cache["damaged"],
        "uncached_writes": cache["uncached_writes"],
        "last_write_problem": cache["last_write_problem"],
        "read_calls": driver.reads,
        "read_calls_inline": driver.inline,
        "read_errors": driver.errors,
        "last_error": driver.last_error,
        "read_ahead_kb": status.read_ahead_kb,
        "mirrors": cache["mirrors"],
    }


def _show_mount(facts: dict[str, object]) -> None:
    needed, cached = int(str(facts["needed_bytes"])), int(str(facts["cached_bytes"]))
    share = 100 * cached // needed if needed else 100
    click.echo(f"{facts['image']} on {facts['mountpoint']} (process {facts['pid']})")
    unplug = "yes: all of it is here" if facts["safe_to_unplug"] else f"no: {share} % is here"
    click.echo(f"  disk            {human_bytes(int(str(facts['disk_bytes'])))}, {human_bytes(needed)} of data")
    click.echo(f"  cached          {human_bytes(cached)} ({share} %)")
    click.echo(f"  fetched         {human_bytes(int(str(facts['fetched_bytes'])))} in {facts['requests']} requests")
    click.echo(
        f"  waited for      {facts['demand_stalls']} reads, {int(str(facts['stalled_ms'])) / 1000:.1f} s in all, "
        f"{int(str(facts['worst_stall_ms'])) / 1000:.1f} s at worst"
    )
    click.echo(
        f"  fetched ahead   {facts['prefetched_blocks']} blocks, {facts['prefetch_hits']} of them used; {_ahead(facts)}"
    )
    click.echo(f"  safe to unplug  {unplug}")
    for key, text in (
        ("failed_reads", "reads failed"),
        ("damaged", "damaged cached blocks were fetched again"),
        ("uncached_writes", "blocks could not be kept"),
    ):
        if facts[key]:
            click.echo(f"  attention       {facts[key]} {text}")
    mirrors = facts["mirrors"]
    for mirror in mirrors if isinstance(mirrors, list) else []:
        remark = f", DEMOTED: {mirror['last_problem']}" if mirror["demoted"] else ""
        bad = f", {mirror['bad_blocks']} BAD BLOCKS" if mirror["bad_blocks"] else ""
        click.echo(f"  source          {mirror['name']}: {mirror['served']} blocks{bad}{remark}")


def _ahead(facts: dict[str, object]) -> str:
    """What is being fetched ahead, in words."""
    prefetch = facts["prefetch"]
    if not isinstance(prefetch, dict):
        return "off"
    words = {
        "off": "nothing is fetched ahead",
        "starting": "starting",
        "streaming": f"the bundle {prefetch['profile']!r} is coming",
        "following": f"another mount fetches the bundle {prefetch['profile']!r}",
        "complete": f"the bundle {prefetch['profile']!r} is here",
        "profile": f"the profile {prefetch['profile']!r} is being fetched",
        "filling": "all the rest is being fetched",
        "idle": "done",
        "failed": f"the bundle could not be had: {prefetch['last_problem']}",
    }
    return words.get(str(prefetch["state"]), str(prefetch["state"]))


@click.command()
@click.argument("what", required=False, metavar="[MOUNTPOINT|INSTANCE]")
@json_option
def status(what: str | None, *, as_json: bool) -> None:
    """What mounts and instances fetched, cached and wait for. Without an argument: a line for each.

    \b
    Example:
      oscirc status debian
    """
    if what is None:
        _status_of_all(as_json=as_json)
        return
    facts = _facts_of_one(what)
    if as_json:
        print_json(facts)
        return
    if "state" in facts:
        click.echo(f"instance {facts['name']}: {facts['state']}")
    if "pid" in facts and "needed_bytes" in facts:
        _show_mount(facts)


def _facts_of_one(what: str) -> dict[str, object]:
    from oscirc.commands.instances import facts_of, load
    from oscirc_blockstore.errors import LocalError, NotFoundError
    from oscirc_fusedriver import records

    record = records.find(Path(what))
    if record is not None and record.process.alive():
        return mount_facts(record)
    if record is not None:
        raise LocalError(f"the driver of {record.mountpoint} died", hint=f"run: oscirc umount {record.mountpoint}")
    with contextlib.suppress(NotFoundError):
        if "/" not in what:
            instance = load(what)
            facts = asyncio.run(facts_of(instance))
            record = records.find(Path(instance.record.mount_point))
            if record is None or not record.process.alive():
                return facts
            return {**facts, **mount_facts(record), "name": instance.name, "machine_pid": facts["pid"]}
    raise NotFoundError(f"nothing of oscirc is mounted at {what}, and no instance is called so", hint="see: oscirc ps")


def _status_of_all(*, as_json: bool) -> None:
    from oscirc.commands.instances import facts_of
    from oscirc_blockstore.errors import OscircError
    from oscirc_fusedriver import records
    from oscirc_vmlaunch.instances import Instances

    mounts: list[dict[str, object]] = []
    for record in records.list_records():
        named = {"mountpoint": record.mountpoint, "remote": record.remote, "image": record.image}
        if not record.process.alive():
            mounts.append({**named, "stale": True})
            continue
        try:
            mounts.append({**mount_facts(record), "stale": False})
        except OscircError as error:
            mounts.append({**named, "stale": False, "error": str(error)})

    async def collect() -> list[dict[str, object]]:
        return [await facts_of(instance) for instance in Instances().load_all()]

    instances = asyncio.run(collect())
    if as_json:
        print_json({"mounts": mounts, "instances": instances})
        return
    if not mounts and not instances:
        say("nothing is mounted, and there are no instances")
    if mounts:
        rows = [(f"{m['remote']}:{m['image']}", str(m["mountpoint"]), _state_of(m)) for m in mounts]
        print_table(("IMAGE", "MOUNTPOINT", "STATE"), rows)
    if instances:
        print_table(
            ("INSTANCE", "STATE", "IMAGE"), [(str(i["name"]), str(i["state"]), str(i["image"])) for i in instances]
        )


def _state_of(mount: dict[str, object]) -> str:
    if mount["stale"]:
        return f"its driver died; run: oscirc umount {mount['mountpoint']}"
    if "error" in mount:
        return str(mount["error"])
    fetched = human_bytes(int(str(mount["fetched_bytes"])))
    return f"{mount['cached_blocks']} of {mount['needed_blocks']} blocks here, {fetched} fetched"
