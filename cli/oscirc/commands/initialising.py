"""`oscirc serve init | online-keys`: a repository is made, with keys of this machine or signed by several elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, warn
from oscirc.server_options import blocks_option, data_option, database_option, keys_option

if TYPE_CHECKING:
    from oscirc_server.initialising import InitResult

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def initialise_repository(
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
    """Make a repository with keys on this machine and tell its line and token; `oscirc serve` does it where none is."""
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_server.initialising import initialise

    secret = passphrase(passphrase_file, what="the new root and targets keys", new=True)
    try:
        made = initialise(data, keys_directory, secret, public_url, name, database_url=database, blocks_url=blocks)
    except DocumentRefusedError as error:  # what would not be a document comes from an argument here
        raise UsageError(str(error)) from None
    _tell_made(made, as_json=as_json)
    if keys_directory is None and not as_json:
        warn(
            f"the root and targets keys are in {made.keys_dir}: whoever takes this server can sign as any publisher. "
            "Move root.pem and targets.pem away and name their place with --keys when a command needs them."
        )


def _tell_made(made: InitResult, *, as_json: bool) -> None:
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


def _initialise_signed(
    data: Path,
    request_file: Path,
    signature_files: tuple[Path, ...],
    database: str | None,
    blocks: str | None,
    *,
    as_json: bool,
) -> None:
    import time

    from oscirc import ceremony_files
    from oscirc_blockstore.errors import UsageError
    from oscirc_blockstore.repository_facts import TARGET
    from oscirc_server import ceremonies
    from oscirc_server.initialising import initialise_signed

    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    if {part.role for part in request.parts} != {"root", "targets"} or TARGET not in request.documents:
        raise UsageError(f"{request_file} makes no repository", hint="that is what oscirc ceremony new asks for")
    signed = ceremonies.assemble(request, ceremony_files.read_all_signatures(request, signature_files))
    made = initialise_signed(data, signed, request.documents[TARGET], database_url=database, blocks_url=blocks)
    _tell_made(made, as_json=as_json)


@click.command("online-keys")
@data_option
@click.option("--new", is_flag=True, help="New ones, which the next root is to name; those in force stay until then.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@database_option
@blocks_option
@json_option
def online_keys(
    *, data: Path, new: bool, out: Path | None, database: str | None, blocks: str | None, as_json: bool
) -> None:
    """Write the public halves of this server's online keys, for a ceremony. Makes keys where there are none.

    \b
    Example:
      oscirc serve online-keys --data /srv/oscirc -o online.json
    """
    from oscirc import ceremony_files
    from oscirc_server.administration import Administration
    from oscirc_server.errors import NotInitialisedError
    from oscirc_server.initialising import prepare

    try:
        made = Administration(data, database_url=database, blocks_url=blocks).online_keys(new=new)
    except NotInitialisedError:
        made = prepare(data)
    if out is not None:
        ceremony_files.write_new_file(out, made.serialise())
    if as_json:
        print_json({**made.fingerprints, "file": None if out is None else str(out)})
        return
    for role, mark in made.fingerprints.items():
        click.echo(f"{role:9}  {mark}")


@click.command()
@click.argument("signature_files", metavar="[SIGNATURE]…", nargs=-1, type=_FILE)
@data_option
@keys_option()
@click.option("--public-url", help="The URL under which readers will reach the repository.")
@click.option("--name", help="What the repository calls itself (default: the URL's host).")
@database_option
@blocks_option
@passphrase_file_option
@click.option("--ceremony", "request_file", type=_FILE, help="The request of oscirc ceremony new that was signed.")
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
    request_file: Path | None,
    signature_files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Make a repository: keys, first signatures, an administrator's token.

    With --ceremony root and targets keys never come near this machine: several people signed where these are.

    \b
    Example:
      oscirc serve init --data /srv/oscirc --keys /media/offline --public-url https://images.example/repo
      oscirc serve init --data /srv/oscirc --ceremony first.request first.*.signature
    """
    if request_file is not None:
        _initialise_signed(data, request_file, signature_files, database, blocks, as_json=as_json)
        return
    initialise_repository(data, keys_directory, passphrase_file, public_url, name, database, blocks, as_json=as_json)
