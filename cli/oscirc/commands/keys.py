"""`oscirc key create | list | show | export`: the keys that sign as a publisher. They never leave this workstation."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, passphrase, passphrase_file_option
from oscirc.output import print_json, print_table, say


@click.group()
def key() -> None:
    """Your publisher keys, encrypted on this workstation."""


@key.command()
@click.argument("name")
@passphrase_file_option
@json_option
def create(name: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Make a key pair; give the printed public file to an administrator.

    \b
    Example:
      oscirc key create alice
    """
    from oscirc_blockstore.names import check_local_name
    from oscirc_publisher.signing import KeyRing

    check_local_name(name, "key")
    ring = KeyRing()
    made = ring.create(name, passphrase(passphrase_file, what=f"the new key {name}", new=True))
    public = ring.directory / f"{name}.pub"
    if as_json:
        print_json({"name": name, "fingerprint": made.fingerprint, "public_key": str(public)})
        return
    click.echo(f"key {name}, fingerprint {made.fingerprint}")
    click.echo(f"public key: {public}")
    say(f"an administrator lets it publish with: oscirc publisher add {name} {public}")


@key.command("list")
@json_option
def list_keys(*, as_json: bool) -> None:
    """List the keys and their fingerprints.

    \b
    Example:
      oscirc key list
    """
    from oscirc_publisher.signing import KeyRing

    ring = KeyRing()
    found = [ring.show(name) for name in ring.names()]
    if as_json:
        print_json({"keys": [{"name": facts.name, "fingerprint": facts.fingerprint} for facts in found]})
    elif not found:
        say("no keys; make one with: oscirc key create NAME")
    else:
        print_table(("NAME", "FINGERPRINT"), [(facts.name, facts.fingerprint) for facts in found])


@key.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Print a key's fingerprint: what two people compare.

    \b
    Example:
      oscirc key show alice
    """
    from oscirc_publisher.signing import KeyRing

    facts = KeyRing().show(name)
    if as_json:
        print_json({"name": facts.name, "fingerprint": facts.fingerprint})
    else:
        click.echo(facts.fingerprint)


@key.command()
@click.argument("name")
def export(name: str) -> None:
    """Print the public key in PEM.

    \b
    Example:
      oscirc key export alice > alice.pub
    """
    from oscirc_publisher.signing import KeyRing

    click.echo(KeyRing().export(name).decode(), nl=False)
