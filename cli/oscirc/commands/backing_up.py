"""`oscirc serve backup` and `oscirc serve restore`: the database and the server's keys."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option
from oscirc.output import human_bytes, print_json, say
from oscirc.server_options import blocks_option, data_option, database_option

_directory = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("directory", type=_directory)
@click.option("--keep", type=click.IntRange(1), help="Remove all but the newest N backups there (default: none).")
@data_option
@database_option
@blocks_option
@json_option
def backup(
    directory: Path, *, keep: int | None, data: Path, database: str | None, blocks: str | None, as_json: bool
) -> None:
    """Copy the database and this server's keys into a new folder below DIRECTORY, beside a running server.

    Copy the blocks after it, not before: the tree of the data directory, or the bucket. PostgreSQL is dumped with its
    own pg_dump.

    \b
    Example:
      oscirc serve backup /srv/backups/oscirc --data /srv/oscirc --keep 14
    """
    from oscirc_server.backing_up import back_up
    from oscirc_server.installation import Installation
    from oscirc_server.settings import Settings

    with Installation.open(Settings(data_dir=data, database_url=database, blocks_url=blocks)) as installation:
        made = back_up(installation, directory, keep=keep)
    if as_json:
        print_json(
            {
                "directory": str(made.directory),
                "bytes": made.length_bytes,
                "database": made.database,
                "roles": made.roles,
            }
        )
        return
    say(f"{human_bytes(made.length_bytes)} in {made.directory}")


@click.command()
@click.argument("directory", type=_directory)
@data_option
@database_option
@click.option("--dry-run", is_flag=True, help="Check the backup, and change nothing.")
@json_option
def restore(directory: Path, *, data: Path, database: str | None, dry_run: bool, as_json: bool) -> None:
    """Put the backup in DIRECTORY back. No server may run; what stands there is set aside, not removed.

    The next start of the server brings the database up to what the store has seen since, and never uses a version
    number twice. A PostgreSQL database must be empty.

    \b
    Example:
      oscirc serve restore /srv/backups/oscirc/2026-11-25T033000Z --data /srv/oscirc
    """
    from oscirc_server.backing_up import check, read
    from oscirc_server.restoring import restore as put_back
    from oscirc_server.settings import Settings

    found = read(directory)
    if dry_run:
        check(found)
    aside = [] if dry_run else put_back(Settings(data_dir=data, database_url=database), found)
    if as_json:
        facts = {"made": found.made, "database": found.database, "roles": found.roles}
        print_json({**facts, "set_aside": [str(path) for path in aside]})
        return
    if dry_run:
        say(f"the backup of {found.made} is whole: {human_bytes(found.length_bytes)}")
        return
    for path in aside:
        say(f"set aside: {path}")
    say(f"restored from {found.made}; start the server, then look at: oscirc serve status")
