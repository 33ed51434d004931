"""`oscirc publisher add | rotate | remove | list | resign`: who may publish, and for how long their word is good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.options import json_option, key_option, passphrase, passphrase_file_option, token_file_option
from oscirc.output import print_json, print_table, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
_keys_option = click.option(
    "--keys",
    "keys_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Directory that holds the repository's targets key (targets.pem).",
)


@click.group()
def publisher() -> None:
    """An administrator's: who may publish in a repository. And a publisher's own renewal."""


def _public_key(path: Path) -> Ed25519PublicKey:
    from oscirc_blockstore import keys
    from oscirc_blockstore.errors import LocalError

    try:
        return keys.load_public(path.read_bytes()[: keys.MAX_KEY_BYTES], str(path))
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None


def _targets_key(directory: Path, passphrase_file: Path | None) -> Ed25519PrivateKey:
    from oscirc_blockstore import keys
    from oscirc_blockstore.errors import LocalError

    path = directory / "targets.pem"
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise LocalError(f"cannot read the targets key {path}: {error.strerror}") from None
    return keys.load_private(pem, passphrase(passphrase_file, what="the repository's targets key"), str(path))


def _change_targets(
    name: str,
    keys_directory: Path,
    passphrase_file: Path | None,
    token_file: Path | None,
    change: Callable[[bytes, Ed25519PrivateKey, str, datetime], bytes],
) -> str:
    """Fetch the targets role, change it, sign it where the key is, and send it; the remote's name."""
    from oscirc import composition
    from oscirc_publisher import administration

    remote, plain_name = composition.parse_publisher(name)
    key = _targets_key(keys_directory, passphrase_file)
    with composition.rest_client(remote, token_file) as rest:
        administration.put_targets(rest, change(administration.fetch_targets(rest), key, plain_name, datetime.now(UTC)))
    return remote.name


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@click.argument("public_key", metavar="PUBKEY-FILE", type=_READABLE)
@_keys_option
@passphrase_file_option
@token_file_option
def add(
    name: str, public_key: Path, *, keys_directory: Path, passphrase_file: Path | None, token_file: Path | None
) -> None:
    """Let a key publish as NAME/*. Signs with the targets key in --keys; needs an administrator's token.

    \b
    Example:
      oscirc publisher add alice alice.pub --keys /media/offline-keys
    """
    from oscirc_blockstore import keys
    from oscirc_publisher import administration

    public = _public_key(public_key)
    remote = _change_targets(
        name,
        keys_directory,
        passphrase_file,
        token_file,
        lambda current, key, plain, now: administration.add_publisher(current, key, plain, public, now),
    )
    say(f"{name.rpartition(':')[2]} may publish in {remote} with the key {keys.fingerprint(public)}")


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@click.argument("public_key", metavar="PUBKEY-FILE", type=_READABLE)
@_keys_option
@passphrase_file_option
@token_file_option
def rotate(
    name: str, public_key: Path, *, keys_directory: Path, passphrase_file: Path | None, token_file: Path | None
) -> None:
    """Give a publisher another key. The publisher then signs again: oscirc publisher resign … --old-key OLD.pub

    \b
    Example:
      oscirc publisher rotate alice alice-2.pub --keys /media/offline-keys
    """
    from oscirc_publisher import administration

    public = _public_key(public_key)
    _change_targets(
        name,
        keys_directory,
        passphrase_file,
        token_file,
        lambda current, key, plain, now: administration.rotate_publisher(current, key, plain, public, now),
    )
    say(f"{name} has a new key; its images are refused until its publisher runs:")
    say(f"  oscirc publisher resign {name} --key NEW-KEY --old-key OLD.pub")


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@_keys_option
@passphrase_file_option
@token_file_option
def remove(name: str, *, keys_directory: Path, passphrase_file: Path | None, token_file: Path | None) -> None:
    """Let a publisher publish no more; its images are no longer resolved.

    \b
    Example:
      oscirc publisher remove alice --keys /media/offline-keys
    """
    from oscirc_publisher import administration

    _change_targets(
        name,
        keys_directory,
        passphrase_file,
        token_file,
        administration.remove_publisher,
    )
    say(f"{name} removed")


@publisher.command("list")
@click.argument("remote_name", metavar="REMOTE", required=False)
@json_option
def list_publishers(remote_name: str | None, *, as_json: bool) -> None:
    """List a repository's publishers, as its server states them.

    \b
    Example:
      oscirc publisher list example
    """
    from oscirc import composition

    with composition.rest_client(composition.only_remote(remote_name), None, authorised=False) as rest:
        answer = rest.call_json("GET", "publishers")
    found = answer.get("publishers", answer.get("items", []))
    if as_json:
        print_json({"publishers": found})
        return
    rows = [
        (str(item.get("name")), str(item.get("role_version")), ", ".join(map(str, item.get("fingerprints", []))))
        for item in (found if isinstance(found, list) else [])
    ]
    print_table(("NAME", "ROLE VERSION", "KEYS"), rows)


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@key_option
@click.option("--old-key", type=_READABLE, help="After a rotation: the former public key, which signed what is served.")
@passphrase_file_option
@token_file_option
@json_option
def resign(
    name: str,
    *,
    key: str,
    old_key: Path | None,
    passphrase_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Sign what is released for another year, as the publisher.

    \b
    Example:
      oscirc publisher resign alice --key alice
    """
    from oscirc import composition
    from oscirc_publisher import changing

    remote, plain = composition.parse_publisher(name)
    trusted = () if old_key is None else (_public_key(old_key),)
    wanted = composition.VersionReference(remote, plain, "", "")
    with composition.signatory(wanted, key, passphrase_file, token_file, also_trusted=trusted) as signatory:
        version = changing.resign(signatory)
    if as_json:
        print_json({"role_version": version})
    else:
        say(f"{plain} is signed for another year (version {version})")
