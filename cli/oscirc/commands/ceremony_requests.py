"""`oscirc ceremony new | root | targets`: the requests that several people sign."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import (
    blocks_beside_data_option,
    data_instead_option,
    database_beside_data_option,
    json_option,
)
from oscirc.output import print_json, say

if TYPE_CHECKING:
    from oscirc_blockstore.signing_request import SigningRequest
    from oscirc_server.ceremony_making import KeySet

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)

_root_option = click.option(
    "--root", "root_keys", type=_FILE, multiple=True, help="A root key's public half. Repeatable."
)
_root_threshold_option = click.option(
    "--root-threshold", type=click.IntRange(1, 32), help="So many of them sign a root."
)
_targets_option = click.option(
    "--targets", "targets_keys", type=_FILE, multiple=True, help="A public targets key. Repeatable."
)
_targets_threshold_option = click.option(
    "--targets-threshold", type=click.IntRange(1, 32), help="So many must sign a targets role."
)
_out_option = click.option("-o", "--out", type=_NEW_FILE, required=True, help="The signing request to write.")
_remote_argument = click.argument("remote_name", metavar="REMOTE", required=False)


def _key_set(paths: tuple[Path, ...], threshold: int | None, what: str) -> KeySet | None:
    from oscirc import ceremony_files
    from oscirc_blockstore.errors import UsageError
    from oscirc_server.ceremony_making import KeySet

    if not paths:
        return None
    if threshold is None and len(paths) > 1:
        raise UsageError(f"how many of the {len(paths)} {what} keys must sign?", hint=f"say so: --{what}-threshold N")
    return KeySet(tuple(ceremony_files.read_public_key(path) for path in paths), threshold or 1)


def _changed_keys(root_raw: bytes, role: str, paths: tuple[Path, ...], threshold: int | None) -> KeySet | None:
    """The keys that are given, else those in force with another threshold, else None: nothing changes."""
    from oscirc_server.ceremony_making import KeySet, keys_of

    given = _key_set(paths, threshold, role)
    if given is not None or threshold is None:
        return given
    return KeySet(keys_of(root_raw, role).keys, threshold)


def _roles_in_force(
    remote_name: str | None, data: Path | None, database: str | None, blocks: str | None
) -> tuple[str, bytes, bytes]:
    """What the repository calls itself here, and its root and targets role in force."""
    from oscirc import composition

    if data is None:
        remote = composition.only_remote(remote_name)
        return remote.line, *composition.trusted_roles(remote)
    from oscirc_server.administration import Administration

    administration = Administration(data, database_url=database, blocks_url=blocks)
    return administration.remote_url(), *administration.roles_in_force()


def write_request(request: SigningRequest, out: Path, *, as_json: bool) -> None:
    """Leave a request in a file, and tell what it asks for."""
    from oscirc import ceremony_files

    ceremony_files.write_new_file(out, request.serialise())
    if as_json:
        print_json({**ceremony_files.document(request, ()), "file": str(out)})
        return
    ceremony_files.show(request, ())
    say(f"written to {out}; whoever is to sign it runs: oscirc ceremony sign {out.name} --key NAME")


@click.command()
@click.argument("online_keys", metavar="ONLINE-KEYS-FILE", type=_FILE)
@_root_option
@_root_threshold_option
@_targets_option
@_targets_threshold_option
@click.option("--public-url", required=True, help="The URL under which readers will reach the repository.")
@click.option("--name", help="What the repository calls itself (default: the URL's host).")
@_out_option
@json_option
def new(
    online_keys: Path,
    *,
    root_keys: tuple[Path, ...],
    root_threshold: int | None,
    targets_keys: tuple[Path, ...],
    targets_threshold: int | None,
    public_url: str,
    name: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Ask for the first signatures of a repository whose root and targets keys never touch its server.

    \b
    Example:
      oscirc ceremony new online.json --root anna.pub --root boris.pub --root-threshold 2
          --targets anna.pub --public-url https://images.example/repo -o first.request
    """
    from urllib.parse import urlsplit

    from oscirc import ceremony_files
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_blockstore.repository_facts import RepositoryFacts, check_url
    from oscirc_server import ceremony_making
    from oscirc_server.online_keys import MAX_BYTES, parse_online_keys

    root, targets = _key_set(root_keys, root_threshold, "root"), _key_set(targets_keys, targets_threshold, "targets")
    if root is None or targets is None:
        raise UsageError(
            "a repository needs root and targets keys", hint="give --root and --targets, once for each key"
        )
    try:
        base = check_url(public_url, "the public URL")
        facts = RepositoryFacts(name or urlsplit(base).hostname or "oscirc", f"{base}/api/v1")
        online = parse_online_keys(ceremony_files.read_file(online_keys, MAX_BYTES, "the file of online keys"))
        request = ceremony_making.first_request(facts, online, root, targets, time.time())
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None
    write_request(request, out, as_json=as_json)


@click.command()
@_remote_argument
@data_instead_option
@database_beside_data_option
@blocks_beside_data_option
@_root_option
@_root_threshold_option
@_targets_option
@_targets_threshold_option
@click.option("--online", "online_keys", type=_FILE, help="New online keys, as `oscirc serve online-keys --new` wrote.")
@_out_option
@json_option
def root(
    remote_name: str | None,
    *,
    data: Path | None,
    database: str | None,
    blocks: str | None,
    root_keys: tuple[Path, ...],
    root_threshold: int | None,
    targets_keys: tuple[Path, ...],
    targets_threshold: int | None,
    online_keys: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Ask for the next root: the same for five more years, or with other keys. Name all keys that are to be good.

    \b
    Example:
      oscirc ceremony root images --root anna.pub --root carla.pub --root-threshold 2 -o root-3.request
    """
    from oscirc import ceremony_files
    from oscirc_server import ceremony_making
    from oscirc_server.online_keys import MAX_BYTES, parse_online_keys

    line, root_raw, targets_raw = _roles_in_force(remote_name, data, database, blocks)
    request = ceremony_making.root_request(
        root_raw,
        targets_raw,
        time.time(),
        line,
        root_keys=_changed_keys(root_raw, "root", root_keys, root_threshold),
        targets_keys=_changed_keys(root_raw, "targets", targets_keys, targets_threshold),
        online=None
        if online_keys is None
        else parse_online_keys(ceremony_files.read_file(online_keys, MAX_BYTES, "the file of online keys")),
    )
    write_request(request, out, as_json=as_json)


@click.command()
@_remote_argument
@data_instead_option
@database_beside_data_option
@blocks_beside_data_option
@click.option("--name", help="Another name for the repository.")
@click.option("--api-url", help="Another address of its REST API.")
@click.option("--mirror", "mirrors", multiple=True, help="All mirrors that it is to name. Repeatable.")
@_out_option
@json_option
def targets(
    remote_name: str | None,
    *,
    data: Path | None,
    database: str | None,
    blocks: str | None,
    name: str | None,
    api_url: str | None,
    mirrors: tuple[str, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Ask for the next targets role: the same for another year, or with another name, API address or mirrors.

    For publishers' keys: oscirc publisher add | rotate | revoke … --request FILE.

    \b
    Example:
      oscirc ceremony targets images -o targets-9.request
    """
    from oscirc import composition
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError
    from oscirc_blockstore.repository_facts import RepositoryFacts
    from oscirc_server import ceremony_making

    line, root_raw, targets_raw = _roles_in_force(remote_name, data, database, blocks)
    facts = None
    if name or api_url or mirrors:
        if data is not None:
            raise UsageError("what the repository says of itself is changed from a workstation that has it as a remote")
        known = composition.only_remote(remote_name).facts() or RepositoryFacts("oscirc")
        facts = RepositoryFacts(name or known.name, api_url or known.api_url, mirrors or known.mirrors)
    try:
        request = ceremony_making.targets_request(root_raw, targets_raw, time.time(), line, facts=facts)
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None
    write_request(request, out, as_json=as_json)


def make_request_commands(group: click.Group) -> None:
    """Add these commands to `oscirc ceremony`."""
    for command in (new, root, targets):
        group.add_command(command)
