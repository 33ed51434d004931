"""What `oscirc publish` says when it is done, or with `--dry-run` would do: for people, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from oscirc.output import human_bytes, print_json, say

if TYPE_CHECKING:
    from oscirc.instance_publishing import OpenedInstance
    from oscirc.screenshots import Sent
    from oscirc_publisher.accelerating import Accelerated
    from oscirc_publisher.differencing import Packed
    from oscirc_publisher.publishing import PublishResult
    from oscirc_publisher.releasing import Released


def say_change(released: Released, done: str, *, as_json: bool) -> None:
    """What became of a change that is signed."""
    if as_json:
        print_json({"role_version": released.role_version, "changed": released.changed})
    else:
        say(done if released.changed else "it was so already: nothing to do")


def report_dry(made: OpenedInstance, *, as_json: bool) -> None:
    """What would be published, found out by reading the changes."""
    from oscirc.instance_publishing import listed
    from oscirc_publisher.building import build_table

    geometry = made.resolved.manifest.geometry
    built = build_table(made.disk, geometry, None)
    if as_json:
        print_json(
            {
                "changed_blocks": built.changed_blocks,
                "data_blocks": built.data_blocks,
                "block_size": geometry.block_size,
                "disk_size": geometry.disk_size,
                **made.facts(),
            }
        )
        return
    click.echo(
        f"{made.told()}: {built.changed_blocks} of {built.data_blocks} blocks differ, "
        f"{human_bytes(built.blocks * geometry.block_size)} before compression"
    )
    if made.found:
        click.echo("not to be public" + (", and left out:" if made.cleaned else ":"))
    for line in listed(made.found):
        click.echo(f"  {line}")


def report(
    result: PublishResult,
    stored_bytes: int | None,
    added: Sequence[Accelerated],
    packs: Sequence[Packed],
    packages: int | None,
    pictured: Sent | None,
    made: OpenedInstance | None,
    *,
    as_json: bool,
) -> None:
    """What was published, what it took, and what is beside it."""
    from oscirc import packing, screenshots

    name = f"{result.publisher}/{result.image}@{result.version}"
    if as_json:
        print_json(
            {
                "image": name,
                "manifest": result.manifest.hex(),
                "already_released": not result.changed,
                "channels": list(result.channels),
                "disk_size": result.disk_size,
                "block_size": result.block_size,
                "data_blocks": result.data_blocks,
                "data_bytes": result.data_blocks * result.block_size,
                "read_bytes": result.read_bytes,
                "new_blocks": result.new_blocks,
                "new_nodes": result.new_nodes,
                "uploaded_bytes": result.uploaded_bytes,
                "stored_bytes": stored_bytes,
                "profiles": [asdict(each) for each in added],
                "deltas": [asdict(each) for each in packs],
                "packages": packages,
                "screenshot": None if pictured is None else asdict(pictured),
                "seconds": round(result.seconds, 3),
                **({} if made is None else {"changed_blocks": result.changed_blocks, **made.facts()}),
            }
        )
        return
    if not result.changed:
        click.echo(f"{name} was released before, with this very disk")
    else:
        click.echo(f"{name} released")
    click.echo(f"  channels  {', '.join(result.channels) or 'none points at it'}")
    click.echo(f"  manifest  sha256:{result.manifest.hex()}")
    if made is not None:
        click.echo(f"  changes   {made.told()}; {result.changed_blocks} blocks differ{', cleaned' * made.cleaned}")
    click.echo(
        f"  disk      {human_bytes(result.disk_size)}, {human_bytes(result.data_blocks * result.block_size)} of data"
    )
    click.echo(
        f"  sent      {human_bytes(result.uploaded_bytes)}: {result.new_blocks} of {result.data_blocks} blocks, "
        f"{result.new_nodes} table nodes, in {result.seconds:.1f} s"
    )
    for each in added:
        click.echo(f"  profile   {each.name}: {each.blocks} blocks, {human_bytes(each.bundle_bytes)} to boot")
    if packages is not None:
        click.echo(f"  packages  {packages} listed")
    if pictured is not None:
        click.echo(f"  picture   {screenshots.line_of(pictured)}")
    for pack in packs:
        click.echo(f"  delta     {packing.line_of(pack)}")
