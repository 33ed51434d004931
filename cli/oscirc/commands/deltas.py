"""`oscirc delta make | list | remove`: the delta packs of released versions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from oscirc.options import json_option, token_file_option
from oscirc.output import human_bytes, print_json, print_table, say


@click.group()
def delta() -> None:
    """Delta packs of released versions: what lets clients update for a fraction of the changed blocks."""


@delta.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.option("--from", "bases", multiple=True, metavar="VERSION", help="The version to start from. Repeatable.")
@click.option(
    "--last", type=click.IntRange(1, 50), help="Start from so many versions that were released before (default: 1)."
)
@click.option("--level", type=click.IntRange(1, 19), help="Compression level (default: 9).")
@click.option("--again", is_flag=True, help="Make it although there is one.")
@click.option("--at-server", is_flag=True, help="Have the server make it, from its own blocks, in the background.")
@token_file_option
@json_option
def make(
    reference: str,
    *,
    bases: tuple[str, ...],
    last: int | None,
    level: int | None,
    again: bool,
    at_server: bool,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make the delta packs to a version from older ones, and put them beside it.

    Blocks that are not in the cache of this machine are fetched from the repository.

    \b
    Example:
      oscirc delta make alice/debian@12.2 --from 12.1
      oscirc delta make alice/debian@12.2 --last 3
      oscirc delta make alice/debian@12.2 --from 11.9 --at-server
    """
    from oscirc import composition, packing
    from oscirc_blockstore import pack_bases
    from oscirc_blockstore.errors import UsageError

    if bases and last:
        raise UsageError("--from names the versions, --last counts them: one of the two")
    if at_server and (again or level is not None):
        raise UsageError("the server makes a pack once, at its usual level: leave --again and --level out")
    wanted = composition.parse_version_reference(reference)
    index = packing.released_index(wanted)
    named = list(bases) or pack_bases.bases(index, wanted.version, None, last or 1)
    if not named:
        raise UsageError(f"{wanted.publisher}/{wanted.image} has no older version than {wanted.version}")
    with composition.rest_client(wanted.remote, token_file) as client:
        if at_server:
            asked = [packing.ask_server(client, wanted, base) for base in named]
            if as_json:
                print_json({"asked": [asdict(each) for each in asked]})
            else:
                packing.tell_asked(asked)
            return
        added = packing.add_packs(client, wanted, named, level=level, again=again, quiet=as_json)
    if as_json:
        print_json({"packs": [asdict(each) for each in added]})
    else:
        packing.tell(added)


@delta.command("list")
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@json_option
def list_packs(reference: str, *, as_json: bool) -> None:
    """The delta packs to a version, and which versions they start from.

    \b
    Example:
      oscirc delta list alice/debian@12.2
    """
    from oscirc import composition, packing

    wanted = composition.parse_version_reference(reference)
    with composition.rest_client(wanted.remote, None, authorised=False) as client:
        found = packing.listed_packs(client, wanted)
    if as_json:
        print_json({"packs": [asdict(each) for each in found]})
    elif not found:
        say(f"none; make one with: oscirc delta make {reference}")
    else:
        rows = [(each.base or "a version unknown here", each.name, human_bytes(each.pack_bytes)) for each in found]
        print_table(("FROM", "NAME", "SIZE"), rows)


@delta.command()
@click.argument("reference", metavar="[REMOTE:]PUBLISHER/IMAGE@VERSION")
@click.argument("bases", nargs=-1, required=True, metavar="VERSION…")
@token_file_option
@json_option
def remove(reference: str, bases: tuple[str, ...], *, token_file: Path | None, as_json: bool) -> None:
    """Take the delta packs from these versions away. Clients then fetch changed blocks whole.

    A pack from a version that is unknown here is named as the list names it.

    \b
    Example:
      oscirc delta remove alice/debian@12.2 12.1
    """
    from oscirc import composition, packing

    wanted = composition.parse_version_reference(reference)
    with composition.rest_client(wanted.remote, token_file) as client:
        packs = packing.listed_packs(client, wanted)
        there = {each.name: each for each in packs} | {each.base: each for each in packs if each.base}
        removed = []
        for base in bases:
            pack = there.get(base)
            if pack is None:
                say(f"{reference} has no delta pack from {base}")
                continue
            packing.remove(client, wanted, pack)
            removed.append(base)
            say(f"the delta pack from {base} is removed")
    if as_json:
        print_json({"removed": removed})
