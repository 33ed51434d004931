"""`oscirc ceremony show | sign | publish`: what several people sign, on machines of their own.

The requests are made by `ceremony new | root | targets` (`ceremony_requests`) and by what changes publishers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.commands.ceremony_requests import make_request_commands
from oscirc.options import (
    blocks_beside_data_option,
    data_instead_option,
    database_beside_data_option,
    json_option,
    passphrase,
    passphrase_file_option,
    token_file_option,
)
from oscirc.output import print_json, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from oscirc_blockstore.signing_request import SigningRequest

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_SHORT_FINGERPRINT = 8


@click.group()
def ceremony() -> None:
    """Sign together: a request goes out, signature files come back, in any order, from machines without network."""


make_request_commands(ceremony)


@ceremony.command()
@click.argument("request_file", metavar="REQUEST", type=_FILE)
@click.argument("signature_files", metavar="[SIGNATURE]…", nargs=-1, type=_FILE)
@json_option
def show(request_file: Path, signature_files: tuple[Path, ...], *, as_json: bool) -> None:
    """What a request would change, who has to sign it, and who has.

    \b
    Example:
      oscirc ceremony show root-3.request root-3.*.signature
    """
    from oscirc import ceremony_files
    from oscirc_server import ceremonies

    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    signatures = ceremony_files.read_all_signatures(request, signature_files)
    if as_json:
        print_json(ceremony_files.document(request, signatures))
    else:
        ceremony_files.show(request, signatures)


@ceremony.command()
@click.argument("request_file", metavar="REQUEST", type=_FILE)
@click.option("--key", "key_name", help="The key to sign with, by its name (oscirc key list).")
@click.option(
    "--keys",
    "keys_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead: the directory of root.pem and targets.pem, as oscirc serve init made them.",
)
@click.option("--yes", is_flag=True, help="Do not ask; for when it was looked at with ceremony show.")
@click.option("-o", "--out", type=_NEW_FILE, help="The signature file (default: beside the request).")
@passphrase_file_option
@json_option
def sign(
    request_file: Path,
    *,
    key_name: str | None,
    keys_directory: Path | None,
    yes: bool,
    out: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Look at a request and sign it with your key. Needs no network.

    \b
    Example:
      oscirc ceremony sign root-3.request --key anna
    """
    from oscirc import ceremony_files
    from oscirc_blockstore import keys
    from oscirc_blockstore.errors import UsageError
    from oscirc_blockstore.signing_request import sign_request
    from oscirc_server import ceremonies

    if (key_name is None) == (keys_directory is None):
        raise UsageError("say with which key to sign", hint="--key NAME (oscirc key list), or --keys DIR")
    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    if not as_json:
        ceremony_files.show(request, ())
    if not yes:
        _ask()
    if key_name is not None:
        private = [_ring_key(key_name, passphrase_file)]
    else:
        private = _keys_in(keys_directory or Path(), request, passphrase_file)
    chosen = [(key, ceremonies.roles_for(request, key.public_key())) for key in private]
    first = keys.fingerprint(private[0].public_key())[:_SHORT_FINGERPRINT]
    out = out or request_file.with_name(f"{request_file.stem}.{first}.signature")
    ceremony_files.write_new_file(out, sign_request(request, chosen))
    roles = sorted({role for _, found in chosen for role in found})
    if as_json:
        print_json({**ceremony_files.document(request, ()), "file": str(out), "roles": roles})
    else:
        say(f"signed {' and '.join(roles)}: bring {out} back to whoever asked")


def _ask() -> None:
    from oscirc_blockstore.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("nobody is here to look at it", hint="look with oscirc ceremony show, then give --yes")
    if not click.confirm("Is that what you want to sign?", err=True):
        raise UsageError("not signed")


def _ring_key(name: str, passphrase_file: Path | None) -> Ed25519PrivateKey:
    from oscirc_publisher.signing import KeyRing

    ring = KeyRing()
    ring.show(name)  # an unknown name is said before a passphrase is asked for
    return ring.load(name, passphrase(passphrase_file, what=f"the key {name}")).private


def _keys_in(directory: Path, request: SigningRequest, passphrase_file: Path | None) -> list[Ed25519PrivateKey]:
    """The keys of the request's roles in a directory, those that are asked."""
    from oscirc import ceremony_files
    from oscirc_blockstore import keys
    from oscirc_blockstore.errors import NotFoundError, UsageError
    from oscirc_server import ceremonies
    from oscirc_server.key_files import OFFLINE_ROLES, key_paths

    secret = passphrase(passphrase_file, what=f"the keys in {directory}")
    found: list[Ed25519PrivateKey] = []
    for path in (path for role in OFFLINE_ROLES for path in key_paths(directory, role)):
        raw = ceremony_files.read_file(path, keys.MAX_KEY_BYTES, "the key")
        private = keys.load_private(raw, secret, str(path))
        try:
            ceremonies.roles_for(request, private.public_key())
        except UsageError:
            continue
        found.append(private)
    if not found:
        raise NotFoundError(f"no key in {directory} is asked to sign this")
    return found


@ceremony.command()
@click.argument("request_file", metavar="REQUEST", type=_FILE)
@click.argument("signature_files", metavar="SIGNATURE…", nargs=-1, type=_FILE)
@click.option("--remote", "remote_name", metavar="REMOTE", help="Which remote (default: the only one).")
@data_instead_option
@database_beside_data_option
@blocks_beside_data_option
@click.option("--dry-run", is_flag=True, help="Count the signatures and judge the result; send nothing.")
@token_file_option
@json_option
def publish(
    request_file: Path,
    signature_files: tuple[Path, ...],
    *,
    remote_name: str | None,
    data: Path | None,
    database: str | None,
    blocks: str | None,
    dry_run: bool,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Put the signatures together and let the result take force. Exit code 4 while signatures are missing.

    Again with the same files it changes nothing. Root and targets roles need an administrator's token (or --data, on
    the server's machine), a publisher's role the publisher's.

    \b
    Example:
      oscirc ceremony publish root-3.request root-3.*.signature
    """
    from oscirc import ceremony_files, ceremony_sending
    from oscirc_server import ceremonies

    request = ceremony_files.read_request(request_file)
    ceremonies.judge(request, time.time())
    signatures = ceremony_files.read_all_signatures(request, signature_files)
    signed = {role: made.raw for role, made in ceremonies.assemble(request, signatures).items()}
    facts: dict[str, object] = {} if not as_json else ceremony_files.document(request, signatures)
    if not as_json:
        ceremony_files.show(request, signatures)
    if not dry_run:
        if data is not None:
            facts |= ceremony_sending.to_data(request, signed, data, database, blocks)
        else:
            facts |= ceremony_sending.to_remote(request, signed, remote_name, token_file)
    if as_json:
        print_json({**facts, "published": not dry_run})
    else:
        say(
            "complete; nothing was sent"
            if dry_run
            else f"in force: {', '.join(f'{k} {v}' for k, v in facts.items() if v)}"
        )
