"""`oscirc serve import`: another tree becomes part of a repository, or a repository again (ADR 22)."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import human_bytes, print_json, progress, say, warn
from oscirc.server_options import blocks_option, data_option, database_option, keys_option

if TYPE_CHECKING:
    from oscirc_server.importing.administration import Imported

_RELATIONS = {
    "new": "there was no repository here: it is the tree's own now, under the same root of trust",
    "same": "the tree has the root of trust of this repository",
    "other": "the tree has another root of trust",
}


@click.command("import")
@click.argument("source", metavar="DIR|URL[#sha256=…]")
@data_option
@database_option
@blocks_option
@keys_option("Where the root key is, when the snapshot and timestamp keys of the old server are lost.")
@click.option("--root", metavar="SHA256", help="A root of trust of the tree that you vouch for (of a DIR: its first).")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Block files read at a time.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken over, and change nothing.")
@passphrase_file_option
@json_option
def import_(
    source: str,
    *,
    data: Path,
    database: str | None,
    blocks: str | None,
    keys_directory: Path | None,
    root: str | None,
    jobs: int,
    dry_run: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Bring another tree into this repository; every block is decoded and hashed. It can be interrupted and repeated.

    SOURCE is a tree (DATA/tree of a server, a mirror's tree) or its URL. Where there is no repository here so far
    (the database was lost, or is to be another one), copy keys/ of the old server to DATA/keys first: all comes, and
    nobody has to sign anew. From a tree with another root of trust come the publishers whose keys this repository
    delegates to, and of the others the blocks, so that publishing again sends next to nothing. Accounts and tokens are
    in no tree. Exit code 3 while parts are missing.

    \b
    Example:
      oscirc serve import /srv/old/tree --data /srv/oscirc --database postgresql+psycopg:///oscirc
    """
    from oscirc_server.importing.administration import run_import
    from oscirc_server.importing.running import Progress

    secret = None if keys_directory is None else passphrase(passphrase_file, what="the root key")
    with progress("blocks", None, quiet=as_json) as bar:
        done = run_import(
            source,
            data,
            database_url=database,
            blocks_url=blocks,
            root=root,
            keys_dir=keys_directory,
            passphrase=secret,
            jobs=jobs,
            dry_run=dry_run,
            progress=Progress(bar.set_postfix_str, bar.update),
        )
    if as_json:
        _print_json(done)
    else:
        _print(done, dry_run=dry_run)
    return 3 if done.report.missing or done.report.incomplete else 0


def _print_json(done: Imported) -> None:
    facts = asdict(done.report)
    facts["blocks"]["lacking"] = [digest.hex() for digest in done.report.blocks.lacking]
    print_json({**facts, "remote_url": done.remote_url, "admin_token": done.admin_token})


def _print(done: Imported, *, dry_run: bool) -> None:
    report = done.report
    say(_RELATIONS[report.relation] if not (dry_run and report.relation == "new") else "there is no repository here")
    for publisher, version in sorted(report.taken_over.items()):
        say(f"{publisher}: {'would be' if dry_run else ''} taken over, role version {version}".replace(":  ", ": "))
    for publisher, why in sorted(report.not_taken_over.items()):
        say(f"{publisher}: blocks only, to be published anew: {why}")
    copied = report.blocks
    if not dry_run:
        say(
            f"{copied.stored} blocks and nodes came ({human_bytes(copied.stored_bytes)}), {copied.present} were here; "
            f"{report.accelerators} accelerators came"
        )
    for reference in report.incomplete:
        warn(f"the tree lacks parts of {reference}")
    for path in report.missing:
        warn(f"the tree lacks {path}")
    if done.admin_token:
        click.echo("Users have this repository as:")
        click.echo(f"  {done.remote_url}")
        click.echo("The administrator's token, shown this once (store it with: oscirc login NAME):")
        click.echo(f"  {done.admin_token}")
