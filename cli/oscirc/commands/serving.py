"""`oscirc serve`: run a repository server, and look after one (init, status, resign, rotate)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, say, warn

if TYPE_CHECKING:
    from oscirc_server.administration import Administration

_data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("oscirc-data"),
    show_default=True,
    help="The server's data directory.",
)
_database_option = click.option("--database", help="Database URL (default: SQLite in the data directory).")
_blocks_option = click.option("--blocks", help="Block storage URL (default: the data directory).")
_keys_option = click.option(
    "--keys",
    "keys_directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the root and targets keys (default: inside the data directory; better: elsewhere).",
)
_RENEWABLE = click.Choice(["root", "targets", "online"])
_ROLES = click.Choice(["root", "targets", "snapshot", "timestamp", "online"])


def _administration(data: Path, database: str | None, blocks: str | None) -> Administration:
    from oscirc_server.administration import Administration

    return Administration(data, database_url=database, blocks_url=blocks)


@click.group(invoke_without_command=True)
@_data_option
@click.option("--listen", default="127.0.0.1:8420", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@_database_option
@_blocks_option
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--no-shared-boots", is_flag=True, help="Take no boots that users share.")
@click.pass_context
def serve(
    context: click.Context,
    *,
    data: Path,
    listen: str,
    database: str | None,
    blocks: str | None,
    log_level: str,
    no_shared_boots: bool,
) -> None:
    """Run a repository server until Ctrl-C or SIGTERM.

    With an empty data directory a repository is made first, as `oscirc serve init` does.

    \b
    Example:
      oscirc serve init --data /srv/oscirc --public-url https://images.example/repo
      oscirc serve --data /srv/oscirc --listen 0.0.0.0:8420
    """
    if context.invoked_subcommand is not None:
        return
    from oscirc_server.running import run
    from oscirc_server.settings import Listen, Settings

    where = Listen.parse(listen)
    if not data.exists() or not any(data.iterdir()):
        base = where.url(where.port) if where.port else None
        _initialise(data, None, None, base, None, database, blocks, as_json=False)
    run(
        Settings(
            data_dir=data,
            listen=where,
            database_url=database,
            blocks_url=blocks,
            log_level=log_level,
            shared_boots=not no_shared_boots,
        ),
        ready=lambda url: click.echo(f"listening on {url}"),
    )


def _initialise(
    data: Path,
    keys_directory: Path | None,
    passphrase_file: Path | None,
    public_url: str | None,
    name: str | None,
    database: str | None,
    blocks: str | None,
    *,
    as_json: bool,
) -> None:
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_server.initialising import initialise

    secret = passphrase(passphrase_file, what="the new root and targets keys", new=True)
    try:
        made = initialise(data, keys_directory, secret, public_url, name, database_url=database, blocks_url=blocks)
    except DocumentRefusedError as error:  # what would not be a document comes from an argument here
        raise UsageError(str(error)) from None
    if as_json:
        print_json(
            {
                "remote_url": made.remote_url,
                "root_digest": made.root_digest,
                "admin_token": made.admin_token,
                "keys": str(made.keys_dir),
            }
        )
        return
    click.echo("Users add this repository with:")
    click.echo(f"  oscirc remote add NAME '{made.remote_url}'")
    click.echo("The administrator's token, shown this once (store it with: oscirc login NAME):")
    click.echo(f"  {made.admin_token}")
    if keys_directory is None:
        warn(
            f"the root and targets keys are in {made.keys_dir}: whoever takes this server can sign as any publisher. "
            "Move root.pem and targets.pem away and name their place with --keys when a command needs them."
        )


@serve.command()
@_data_option
@_keys_option
@click.option("--public-url", help="The URL under which readers will reach the repository.")
@click.option("--name", help="What the repository calls itself (default: the URL's host).")
@_database_option
@_blocks_option
@passphrase_file_option
@json_option
def init(
    *,
    data: Path,
    keys_directory: Path | None,
    public_url: str | None,
    name: str | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a repository: keys, first signatures, an administrator's token.

    \b
    Example:
      oscirc serve init --data /srv/oscirc --keys /media/offline --public-url https://images.example/repo
    """
    _initialise(data, keys_directory, passphrase_file, public_url, name, database, blocks, as_json=as_json)


@serve.command()
@_data_option
@_database_option
@_blocks_option
@click.option("--check", is_flag=True, help="For monitoring: one line, and the exit code.")
@json_option
def status(*, data: Path, database: str | None, blocks: str | None, check: bool, as_json: bool) -> int:
    """Expiries, alarms, which keys are where, sizes. Exit code 4 when something has to be done.

    \b
    Example:
      oscirc serve status --data /srv/oscirc
      oscirc serve status --data /srv/oscirc --check
    """
    from oscirc import serving_text

    found = _administration(data, database, blocks).status()
    healthy = found.severity == "ok"
    if as_json:
        print_json(serving_text.status_document(found))
    elif check:
        click.echo(serving_text.check_line(found))
    else:
        serving_text.print_status(found)
    return 0 if healthy else 4


@serve.command()
@click.argument("role", type=_RENEWABLE)
@_data_option
@_keys_option
@_database_option
@_blocks_option
@passphrase_file_option
@click.option("--above", default=0, type=click.IntRange(0, 10**12), help="online: use only version numbers above this.")
@json_option
def resign(
    role: str,
    *,
    data: Path,
    keys_directory: Path | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    above: int,
    as_json: bool,
) -> None:
    """Renew the root (5 years) or targets (1 year) role where its key is, or the online roles (7 days) at once.

    Safe beside a running server, which renews the online roles daily by itself. Where several people sign root or
    targets: oscirc ceremony root, oscirc ceremony targets.

    \b
    Example:
      oscirc serve resign targets --data /srv/oscirc --keys /media/offline
    """
    from oscirc import serving_text

    administration = _administration(data, database, blocks)
    if role == "online":
        renewed = administration.resign_online(above=above)
    else:
        secret = passphrase(passphrase_file, what=f"the {role} key")
        renewed = administration.resign(role, keys_directory, secret)
    if as_json:
        print_json(serving_text.renewed_document(renewed))
    else:
        say(f"{renewed.role} renewed: version {renewed.version}, until {serving_text.date(renewed.expires_s)}")


@serve.command()
@click.argument("role", type=_ROLES)
@_data_option
@_keys_option
@_database_option
@_blocks_option
@passphrase_file_option
@json_option
def rotate(
    role: str,
    *,
    data: Path,
    keys_directory: Path | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Replace a role's key by a new one (online: snapshot's and timestamp's at once), signed with the root key.

    Safe beside a running server. Where several people sign the root: oscirc ceremony root.

    \b
    Example:
      oscirc serve rotate online --data /srv/oscirc --keys /media/offline
    """
    from oscirc import serving_text

    secret = passphrase(passphrase_file, what="the root key")
    renewed = _administration(data, database, blocks).rotate(role, keys_directory, secret)
    if as_json:
        print_json(serving_text.renewed_document(renewed))
        return
    word = "snapshot and timestamp have new keys" if role == "online" else f"{role} has a new key"
    say(f"{word}: root version {renewed.version}, until {serving_text.date(renewed.expires_s)}")
