"""`oscirc publisher add | rotate | revoke | remove | list | resign`: who may publish, and for how long that is good."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from oscirc.options import json_option, key_option, passphrase, passphrase_file_option, token_file_option
from oscirc.output import print_json, print_table, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from oscirc_publisher.administration import Edit
    from oscirc_publisher.rest import RestClient
    from oscirc_remote.remotes import Remote
    from oscirc_server.tuf_api import Targets

P = ParamSpec("P")
R = TypeVar("R")

_READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
_keys_option = click.option(
    "--keys",
    "keys_directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory that holds the repository's targets key (targets.pem).",
)
_request_option = click.option(
    "--request",
    "request_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead of --keys, where several people sign: the signing request to write (oscirc ceremony).",
)
_threshold_option = click.option("--threshold", type=click.IntRange(1, 32), help="So many of its keys must sign.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would change; sign and send nothing.")


@click.group()
def publisher() -> None:
    """An administrator's: who may publish in a repository. And a publisher's own renewal."""


def _signers(directory: Path, passphrase_file: Path | None) -> list[Ed25519PrivateKey]:
    from oscirc.ceremony_files import read_file
    from oscirc_blockstore import keys
    from oscirc_blockstore.errors import LocalError

    paths = [directory / "targets.pem", *sorted(directory.glob("targets.*.pem"))]
    held = [path for path in paths if path.exists()]
    if not held:
        raise LocalError(
            f"cannot read the targets key {paths[0]}: there is none",
            hint="say with --keys where it is, or have several people sign: --request FILE",
        )
    secret = passphrase(passphrase_file, what="the repository's targets key")
    raw = [(path, read_file(path, keys.MAX_KEY_BYTES, "the targets key")) for path in held]
    return [keys.load_private(pem, secret, str(path)) for path, pem in raw]


@dataclass(frozen=True, slots=True)
class _Change:
    """How a change of the targets role is signed and sent: the options that these commands share."""

    keys_directory: Path | None
    request_file: Path | None
    passphrase_file: Path | None
    token_file: Path | None
    dry_run: bool
    as_json: bool

    def make(self, name: str, edit_of: Callable[[str], Edit]) -> dict[str, object] | None:
        """Let `edit_of(plain name)` take force, or leave it as a request (None: all is said)."""
        from oscirc import composition
        from oscirc_blockstore.errors import UsageError

        remote, plain = composition.parse_publisher(name)
        if (self.keys_directory is None) == (self.request_file is None) and not self.dry_run:
            raise UsageError("who signs the targets role?", hint="--keys DIR with targets.pem, or --request FILE")
        if self.keys_directory is None or self.dry_run:
            self._request(remote, edit_of(plain))
            return None
        return self._send(remote, plain, edit_of(plain))

    def _request(self, remote: Remote, edit: Edit) -> None:
        from oscirc import ceremony_files, composition
        from oscirc.commands.ceremony_requests import write_request
        from oscirc_server.ceremony_making import targets_request

        root, targets = composition.trusted_roles(remote)

        def edited(role: Targets) -> Targets:
            edit(role)
            return role

        request = targets_request(root, targets, time.time(), remote.line, edited)
        if self.request_file is not None and not self.dry_run:
            write_request(request, self.request_file, as_json=self.as_json)
        elif self.as_json:
            print_json({**ceremony_files.document(request, ()), "dry_run": True})
        else:
            ceremony_files.show(request, ())

    def _send(self, remote: Remote, plain: str, edit: Edit) -> dict[str, object]:
        from oscirc import composition
        from oscirc_publisher import administration

        signers = _signers(self.keys_directory or Path(), self.passphrase_file)
        with composition.rest_client(remote, self.token_file) as rest:
            current = administration.fetch_targets(rest)
            administration.put_targets(rest, administration.change_targets(current, signers, datetime.now(UTC), edit))
            return {"remote": remote.name, "publisher": _facts_of(rest, plain)}


def _facts_of(rest: RestClient, name: str) -> dict[str, object] | None:
    """What the server states of a publisher; None of one that was removed."""
    from oscirc_blockstore.errors import NotFoundError

    with contextlib.suppress(NotFoundError):
        return rest.call_json("GET", f"publishers/{name}")
    return None


def _change_options(function: Callable[P, R]) -> Callable[P, R]:
    for option in (
        json_option,
        token_file_option,
        passphrase_file_option,
        _dry_run_option,
        _request_option,
        _keys_option,
    ):
        function = option(function)
    return function


def _change(options: dict[str, object]) -> _Change:
    return _Change(**options)  # type: ignore[arg-type]  # click gives what the options above say


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@click.argument("public_keys", metavar="PUBKEY-FILE…", type=_READABLE, nargs=-1, required=True)
@_threshold_option
@_change_options
def add(name: str, public_keys: tuple[Path, ...], *, threshold: int | None, **options: object) -> None:
    """Let a key (or several) publish as NAME/*. Signs with the targets key; needs an administrator's token.

    \b
    Example:
      oscirc publisher add alice alice.pub --keys /media/offline-keys
      oscirc publisher add team anna.pub boris.pub carla.pub --threshold 2 --keys /media/offline-keys
    """
    from oscirc.ceremony_files import read_public_key
    from oscirc_blockstore import keys
    from oscirc_publisher import administration

    public = [read_public_key(path) for path in public_keys]
    change = _change(options)
    facts = change.make(name, lambda plain: administration.adding(plain, public, threshold or 1))
    if facts is not None and change.as_json:
        print_json(facts)
    elif facts is not None:
        marks = ", ".join(keys.fingerprint(key) for key in public)
        terms = f" (any {threshold or 1} of them)" if len(public) > 1 else ""
        said = "the key" if len(public) == 1 else "the keys"
        say(f"{name.rpartition(':')[2]} may publish in {facts['remote']} with {said} {marks}{terms}")


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@click.argument("public_keys", metavar="PUBKEY-FILE…", type=_READABLE, nargs=-1, required=True)
@_threshold_option
@click.option("--keep-old", is_flag=True, help="Planned: the former keys stay good until oscirc publisher revoke.")
@_change_options
def rotate(
    name: str, public_keys: tuple[Path, ...], *, threshold: int | None, keep_old: bool, **options: object
) -> None:
    """Give a publisher another key (or several), at once or beside its former ones.

    Without --keep-old the former keys are worthless from now on, and the images are refused until the publisher signs
    again: oscirc publisher resign … --old-key OLD.pub. For a key that was stolen.

    \b
    Example:
      oscirc publisher rotate alice alice-2.pub --keep-old --keys /media/offline-keys
    """
    from oscirc.ceremony_files import read_public_key
    from oscirc_publisher import administration

    public = [read_public_key(path) for path in public_keys]
    change = _change(options)
    facts = change.make(name, lambda plain: administration.rotating(plain, public, threshold, keep_old=keep_old))
    if facts is not None and change.as_json:
        print_json(facts)
    elif facts is not None and keep_old:
        say(f"{name} has its former keys and the new one; its publisher signs with the new one:")
        say(f"  oscirc publisher resign {name} --key NEW-KEY")
        say(f"after that: oscirc publisher revoke {name} OLD-FINGERPRINT --keys DIR")
    elif facts is not None:
        say(f"{name} has a new key; its images are refused until its publisher runs:")
        say(f"  oscirc publisher resign {name} --key NEW-KEY --old-key OLD.pub")


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@click.argument("gone", metavar="FINGERPRINT|PUBKEY-FILE…", nargs=-1, required=True)
@_threshold_option
@_change_options
def revoke(name: str, gone: tuple[str, ...], *, threshold: int | None, **options: object) -> None:
    """Take one of several keys from a publisher: by its file, its fingerprint (oscirc publisher list) or a beginning.

    \b
    Example:
      oscirc publisher revoke alice 3fa9c1d2 --keys /media/offline-keys
    """
    from oscirc.ceremony_files import read_public_key
    from oscirc_blockstore import keys
    from oscirc_publisher import administration

    fingerprints = [keys.fingerprint(read_public_key(Path(item))) if Path(item).is_file() else item for item in gone]
    change = _change(options)
    facts = change.make(name, lambda plain: administration.revoking(plain, fingerprints, threshold))
    if facts is not None and change.as_json:
        print_json(facts)
    elif facts is not None:
        say(f"{name}: {', '.join(fingerprints)} signs no more")


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@_change_options
def remove(name: str, **options: object) -> None:
    """Let a publisher publish no more; its images are no longer resolved.

    \b
    Example:
      oscirc publisher remove alice --keys /media/offline-keys
    """
    from oscirc_publisher import administration

    change = _change(options)
    facts = change.make(name, administration.removing)
    if facts is not None and change.as_json:
        print_json(facts)
    elif facts is not None:
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
    from oscirc import administering, composition

    with composition.rest_client(composition.only_remote(remote_name), None, authorised=False) as rest:
        found = administering.all_pages(rest, "publishers", "publishers").get("publishers")
    if as_json:
        print_json({"publishers": found})
        return
    rows = [
        (
            str(item.get("name")),
            str(item.get("role_version")),
            f"{item.get('threshold')} of {len(item.get('fingerprints', []))}",
            ", ".join(map(str, item.get("fingerprints", []))),
        )
        for item in (found if isinstance(found, list) else [])
    ]
    print_table(("NAME", "ROLE VERSION", "SIGN", "KEYS"), rows)


@publisher.command()
@click.argument("name", metavar="[REMOTE:]NAME")
@key_option
@click.option(
    "--old-key",
    "old_keys",
    type=_READABLE,
    multiple=True,
    help="After a rotation: the former public key, which signed what is served. Repeatable.",
)
@passphrase_file_option
@token_file_option
@json_option
def resign(
    name: str,
    *,
    key: str,
    old_keys: tuple[Path, ...],
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
    from oscirc.ceremony_files import read_public_key
    from oscirc_publisher import changing

    remote, plain = composition.parse_publisher(name)
    trusted = [read_public_key(path) for path in old_keys]
    wanted = composition.VersionReference(remote, plain, "", "")
    with composition.signatory(wanted, key, passphrase_file, token_file, also_trusted=trusted) as signatory:
        version = changing.resign(signatory)
    if as_json:
        print_json({"role_version": version})
    else:
        say(f"{plain} is signed for another year (version {version})")
