"""`oscirc serve resign | rotate`: a role is signed for longer, or gets another key, beside a running server or not."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, say
from oscirc.server_options import blocks_option, data_option, database_option, keys_option

_RENEWABLE = click.Choice(["root", "targets", "online"])
_ROLES = click.Choice(["root", "targets", "snapshot", "timestamp", "online"])


@click.command()
@click.argument("role", type=_RENEWABLE)
@data_option
@keys_option()
@database_option
@blocks_option
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
    from oscirc_server.administration import Administration

    administration = Administration(data, database_url=database, blocks_url=blocks)
    if role == "online":
        renewed = administration.resign_online(above=above)
    else:
        secret = passphrase(passphrase_file, what=f"the {role} key")
        renewed = administration.resign(role, keys_directory, secret)
    if as_json:
        print_json(serving_text.renewed_document(renewed))
    else:
        say(f"{renewed.role} renewed: version {renewed.version}, until {serving_text.date(renewed.expires_s)}")


@click.command()
@click.argument("role", type=_ROLES)
@data_option
@keys_option()
@database_option
@blocks_option
@passphrase_file_option
@click.option("--dry-run", is_flag=True, help="See whether the keys at hand can sign it; change nothing.")
@json_option
def rotate(
    role: str,
    *,
    data: Path,
    keys_directory: Path | None,
    database: str | None,
    blocks: str | None,
    passphrase_file: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace a role's key by a new one (online: snapshot's and timestamp's at once), signed with the root key.

    Safe beside a running server. Where several people sign the root: oscirc ceremony root.

    \b
    Example:
      oscirc serve rotate online --data /srv/oscirc --keys /media/offline
    """
    from oscirc import serving_text
    from oscirc_server.administration import Administration

    secret = passphrase(passphrase_file, what="the root key")
    administration = Administration(data, database_url=database, blocks_url=blocks)
    made = administration.check_rotation if dry_run else administration.rotate
    renewed = made(role, keys_directory, secret)
    if as_json:
        print_json({**serving_text.renewed_document(renewed), "dry_run": dry_run})
        return
    if dry_run:
        say(
            f"the keys at hand can sign root version {renewed.version}, which would replace {role}; nothing was changed"
        )
        return
    word = "snapshot and timestamp have new keys" if role == "online" else f"{role} has a new key"
    say(f"{word}: root version {renewed.version}, until {serving_text.date(renewed.expires_s)}")
