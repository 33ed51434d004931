"""`oscirc diff`: what changed between two versions, before anything of it is fetched."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys

import click

from oscirc import difference_text, disk_map
from oscirc.options import json_option
from oscirc.output import print_json, warn


@click.command()
@click.argument("first", metavar="[OLD-REF]")
@click.argument("second", required=False, metavar="NEW-REF")
@click.option("--map", "as_map", is_flag=True, help="Draw where on the disk it changed.")
@json_option
def diff(first: str, second: str | None, *, as_map: bool, as_json: bool) -> None:
    """What changed between two versions: blocks, and the bytes to fetch from what is here.

    With one reference: from the version before it that this machine has something of, else from the one before.
    Fetched for the answer are the nodes of the two tables that differ, and what says how long blocks are; no block.

    \b
    Example:
      oscirc diff alice/debian@12.1 alice/debian@12.2
      oscirc diff alice/debian@12.1 @12.2 --map
      oscirc diff alice/debian
    """
    from oscirc_remote.opening import open_whole
    from oscirc_remote.two_versions import Finder
    from oscirc_remote.version_difference import difference

    old, new = Finder(warn).pair(first, second)
    width = max(disk_map.LEAST_WIDTH, shutil.get_terminal_size().columns)
    block_count = max(side.resolved.manifest.geometry.block_count for side in (old, new))
    drawn = disk_map.Cells.of(block_count, width * disk_map.ROWS, difference_text.LOOKS)
    runs = disk_map.Runs(looks=difference_text.LOOKS)
    with (
        contextlib.closing(open_whole(old.resolved)) as opened_old,
        contextlib.closing(open_whole(new.resolved)) as opened_new,
    ):

        def sink(at: int, change: str, count: int) -> None:
            if as_map and not as_json:
                drawn.add(at, change, count)
            elif as_map and not runs.is_full:
                runs.add(at, change, count)

        found = difference(old.resolved, new.resolved, opened_old, opened_new, sink)
    if as_json:
        facts = difference_text.facts(old, new, found)
        print_json({**facts, "runs": runs.runs} if as_map else facts, indented=not as_map)
        return
    click.echo("\n".join(difference_text.lines(old, new, found)))
    if as_map:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        click.echo()
        click.echo("\n".join(disk_map.draw(drawn, found.here.block_size, width=width, colour=colour)))
