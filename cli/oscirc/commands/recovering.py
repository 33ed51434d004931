"""`oscirc serve recover | adopt`: coming back after stolen keys, or after more was lost than one backup gives back."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, print_table, say
from oscirc.server_options import blocks_option, data_option, database_option, keys_option

if TYPE_CHECKING:
    from oscirc_server.recovery import RoleHistory

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _back_to(given: tuple[str, ...]) -> dict[str, int]:
    from oscirc_blockstore.errors import UsageError

    found: dict[str, int] = {}
    for item in given:
        role, equals, number = item.partition("=")
        if not role or not equals or not number.isascii() or not number.isdigit():
            raise UsageError(f"{item[:80]!r} names no version", hint="write ROLE=VERSION, such as snapshot=57")
        found[role] = int(number)
    return found


def _signed_root(request_file: Path, signature_files: tuple[Path, ...]) -> bytes:
    from oscirc import ceremony_files
    from oscirc_blockstore.errors import UsageError
    from oscirc_server import ceremonies

    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    if [part.role for part in request.parts] != ["root"]:
        raise UsageError("recovery takes a request for a root alone", hint="oscirc ceremony root --online FILE")
    return ceremonies.assemble(request, ceremony_files.read_all_signatures(request, signature_files))["root"].raw


def _tell(found: tuple[RoleHistory, ...], back_to: dict[str, int]) -> None:
    rows = [
        (
            history.role,
            str(history.highest),
            "" if history.before_jump is None else f"jumped from {history.before_jump}",
            f"back to {back_to[history.role]}" if history.role in back_to else "",
        )
        for history in found
    ]
    print_table(("ROLE", "VERSION", "", ""), rows)


@click.command()
@click.argument("signature_files", metavar="[SIGNATURE]…", nargs=-1, type=_FILE)
@data_option
@keys_option("Directory of the root key, which signs the new root.")
@click.option("--ceremony", "request_file", type=_FILE, help="Instead: a signed request of ceremony root.")
@click.option(
    "--back-to", "back_to_given", multiple=True, metavar="ROLE=VERSION", help="Forget what is above. Repeatable."
)
@click.option("--before-jumps", is_flag=True, help="Go back to before every jump.")
@click.option("--dry-run", is_flag=True, help="Show versions and jumps; change nothing.")
@database_option
@blocks_option
@passphrase_file_option
@json_option
def recover(
    *,
    data: Path,
    keys_directory: Path | None,
    request_file: Path | None,
    signature_files: tuple[Path, ...],
    back_to_given: tuple[str, ...],
    before_jumps: bool,
    dry_run: bool,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Replace both online keys and go back before versions that a thief jumped to, at once.

    Clients that saw the thief's versions come back by themselves. Look with --dry-run first. Where several people hold
    the root: oscirc serve online-keys --new, oscirc ceremony root --online, and here --ceremony with the signatures.
    Safe beside a running server.

    \b
    Example:
      oscirc serve recover --data /srv/oscirc --dry-run
      oscirc serve recover --data /srv/oscirc --keys /media/offline --before-jumps
    """
    from oscirc_blockstore.errors import UsageError
    from oscirc_server.administration import Administration

    administration = Administration(data, database_url=database, blocks_url=blocks)
    found = administration.histories()
    jumps = {item.role: item.before_jump for item in found if item.before_jump is not None}
    back_to = {**(jumps if before_jumps else {}), **_back_to(back_to_given)}
    if dry_run:
        if as_json:
            print_json({"roles": [asdict(item) for item in found], "back_to": back_to, "dry_run": True})
        else:
            _tell(found, back_to)
        return
    if (keys_directory is None) == (request_file is None):
        raise UsageError("who signs the new root?", hint="--keys DIR with root.pem, or --ceremony with its signatures")
    signed = None if request_file is None else _signed_root(request_file, signature_files)
    secret = None if signed is not None else passphrase(passphrase_file, what="the root key")
    done = administration.recover(back_to, keys_directory, secret, signed_root=signed)
    if as_json:
        print_json(asdict(done))
        return
    say(f"root version {done.root_version} names new online keys; snapshot {done.snapshot_version} is in force")
    for role, version in done.back_to.items():
        say(f"{role} is back at version {version}")
    for path in done.removed:
        say(f"removed, and to be purged from caches and mirrors: {path}")


@click.command()
@click.argument("source", metavar="URL|DIRECTORY")
@data_option
@database_option
@blocks_option
@click.option("--dry-run", is_flag=True, help="Say what would be brought and what is missing; change nothing.")
@json_option
def adopt(source: str, *, data: Path, database: str | None, blocks: str | None, dry_run: bool, as_json: bool) -> int:
    """Take over what readers have seen and both database and store have lost. Stop the server before.

    SOURCE is a mirror's URL, a copy of the tree, or what a reader keeps of this remote
    ($XDG_DATA_HOME/oscirc/remotes/NAME). All of it is verified. Exit code 3 while something signed is missing: run it
    again with another source.

    \b
    Example:
      oscirc serve adopt https://mirror.example/repo --data /srv/oscirc
    """
    from oscirc_server.administration import Administration

    brought = Administration(data, database_url=database, blocks_url=blocks).adopt(source, dry_run=dry_run)
    missing = [path for path in brought.missing if path.startswith(("metadata/", "targets/"))]
    parts = len(brought.missing) - len(missing)
    if as_json:
        print_json({**asdict(brought), "complete": brought.complete, "dry_run": dry_run})
    else:
        verb = "would be brought" if dry_run else "brought"
        say(f"{brought.files} files {verb}, up to snapshot {brought.snapshot_version}")
        for path in missing:
            say(f"still missing: {path}")
        if parts:
            say(f"{parts} manifests and blocks are missing, too: bring them from a mirror that has them")
        if brought.complete and not dry_run:
            say("taken over: readers find what they have seen, and the next numbers are above it")
    return 0 if brought.complete else 3
