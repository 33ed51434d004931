"""`oscirc status`: what mounts and instances fetched, cached and wait for, and the map of a disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc import disk_map, mount_facts, status_text
from oscirc.mount_facts import Facts
from oscirc.options import json_option
from oscirc.output import print_json, print_table, say, warn

if TYPE_CHECKING:
    from oscirc_fusedriver.records import MountRecord
    from oscirc_fusedriver.status import MapPart

MAP_LIMIT_S, MAP_JSON_LIMIT_S = 30.0, 300.0


@click.command()
@click.argument("what", required=False, metavar="[MOUNTPOINT|INSTANCE|REFERENCE]")
@click.option("--map", "as_map", is_flag=True, help="Draw which blocks are zero, absent, cached, fetched ahead.")
@json_option
def status(what: str | None, *, as_map: bool, as_json: bool) -> None:
    """What mounts and instances fetched, cached and wait for. Without an argument: a line for each.

    A reference means the mount of what it stands for. Of an image that is not mounted it says how much is here, whether
    that is enough to boot, and whether the network can be unplugged.

    \b
    Example:
      oscirc status debian
      oscirc status alice/debian
      oscirc status debian --map
    """
    if as_map:
        _show_map(_the_one(what), as_json=as_json)
    elif what is None:
        _show_all(as_json=as_json)
    else:
        _show_one(_facts_of(what), as_json=as_json)


def _show_one(facts: Facts, *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    if "state" in facts:
        click.echo(f"instance {facts['name']}: {facts['state_in_words']}")
    if not facts.get("mounted", True):
        click.echo("\n".join(status_text.unmounted_lines(facts)))
    elif "needed_bytes" in facts:
        click.echo("\n".join(status_text.mount_lines(facts)))


def _facts_of(what: str) -> Facts:
    """A mount's facts; or an instance's, with those of its mount where its driver answers."""
    from oscirc.commands.instances import facts_of, load
    from oscirc_blockstore.errors import NameRefusedError, NotFoundError
    from oscirc_fusedriver import records
    from oscirc_remote import references

    record = records.find(Path(what))
    if record is not None:
        return mount_facts.running(record)
    unknown = NotFoundError(
        f"nothing of oscirc is mounted at {what}, and no instance is called so", hint="see: oscirc ps"
    )
    if "/" in what:
        facts = mount_facts.of_reference(what)
        if facts is not None:
            return facts
        try:
            references.parse(what)
        except NameRefusedError:
            raise unknown from None
        raise NotFoundError(
            f"{what} is not mounted, and was never resolved on this machine",
            hint=f"look at it with: oscirc show {what}",
        )
    try:
        instance = load(what)
    except (NotFoundError, NameRefusedError):
        raise unknown from None
    mounted = mount_facts.at(instance.record.mount_point)
    facts = asyncio.run(facts_of(instance, mounted))
    if "needed_bytes" not in mounted:  # it died, or is ending
        return facts
    return {**facts, **mounted, "name": instance.name, "machine_pid": facts["pid"]}


def _the_one(what: str | None) -> MountRecord:
    """The mount that is meant: at a path, of an instance, or the only one there is."""
    from oscirc_blockstore.errors import NotFoundError, UsageError
    from oscirc_fusedriver import records

    if what is not None:
        record = mount_facts.find_record(what)
        if record is None:
            raise NotFoundError(f"nothing of oscirc is mounted at or for {what}", hint="see: oscirc status")
        return record
    known = [record for record in records.list_records() if record.process.alive()]
    if len(known) != 1:
        places = ", ".join(record.mountpoint for record in known) or "none"
        raise UsageError("say which mount is meant", hint=f"mounted are: {places}")
    return known[0]


def _show_map(record: MountRecord, *, as_json: bool) -> None:
    from oscirc_fusedriver import control_client

    first = control_client.block_map(record, 0)

    def ask(start: int) -> MapPart:
        return control_client.block_map(record, start)

    if as_json:
        runs = disk_map.Runs()
        whole = disk_map.gather(ask, first, runs, limit_s=MAP_JSON_LIMIT_S)
        print_json(
            {
                "mountpoint": record.mountpoint,
                "image": f"{record.image}@{record.version}" if record.version else record.image,
                "disk_bytes": record.disk_size,
                "block_size": first.block_size,
                "block_count": first.block_count,
                "whole": whole,
                "blocks": disk_map.counts(runs.totals),
                "runs": runs.runs,
            },
            indented=False,
        )
        return
    width = max(disk_map.LEAST_WIDTH, shutil.get_terminal_size().columns)
    cells = disk_map.Cells.of(first.block_count, width * disk_map.ROWS)
    whole = disk_map.gather(ask, first, cells, limit_s=MAP_LIMIT_S)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo("\n".join(disk_map.draw(cells, first.block_size, width=width, colour=colour)))
    if not whole:
        warn(f"the map is not whole: the driver was asked for {MAP_LIMIT_S:.0f} s")


def _show_all(*, as_json: bool) -> None:
    from oscirc.commands.instances import facts_of_all

    mounts = mount_facts.of_all()
    instances = asyncio.run(facts_of_all())
    if as_json:
        print_json({"mounts": mounts, "instances": instances})
        return
    if not mounts and not instances:
        say("nothing is mounted, and there are no instances")
    if mounts:
        rows = [(f"{m['remote']}:{m['image']}", str(m["mountpoint"]), status_text.overview(m)) for m in mounts]
        print_table(("IMAGE", "MOUNTPOINT", "STATE"), rows)
    if instances:
        print_table(
            ("INSTANCE", "STATE", "IMAGE"),
            [(str(i["name"]), str(i["state_in_words"]), str(i["image"])) for i in instances],
        )
