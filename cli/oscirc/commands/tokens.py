"""`oscirc token create | list | revoke`: an administrator's, against a running server."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, token_file_option
from oscirc.output import print_json, print_table, say

_remote_option = click.option("--remote", "remote_name", help="Which remote (default: the only one).")


@click.group()
def token() -> None:
    """Tokens: who may ask the server to stage uploads. They never stand for a signature."""


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="admin, or publish:PUBLISHER. Repeatable.")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="Valid for so many days.")
@_remote_option
@token_file_option
@json_option
def create(
    name: str, *, scopes: tuple[str, ...], days: int, remote_name: str | None, token_file: Path | None, as_json: bool
) -> None:
    """Make a token; it is printed once.

    \b
    Example:
      oscirc token create alice-laptop --scope publish:alice
    """
    from oscirc import composition

    document = {"name": name, "scopes": list(scopes), "lifetime_s": days * 86_400}
    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        made = rest.call_json("POST", "tokens", document)
    if as_json:
        print_json(made)
    else:
        click.echo(str(made.get("token")))
        say("shown this once; its holder stores it with: oscirc login REMOTE")


@token.command("list")
@_remote_option
@token_file_option
@json_option
def list_tokens(*, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """List tokens, without their secrets."""
    from oscirc import composition

    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        answer = rest.call_json("GET", "tokens")
    if as_json:
        print_json(answer)
        return
    found = answer.get("tokens", answer.get("items", []))
    columns = ("id", "name", "scopes", "expires", "last_used", "revoked")
    rows = [[_cell(item.get(column)) for column in columns] for item in (found if isinstance(found, list) else [])]
    print_table([column.upper() for column in columns], rows)


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


@token.command()
@click.argument("identifier", metavar="ID")
@_remote_option
@token_file_option
def revoke(identifier: str, *, remote_name: str | None, token_file: Path | None) -> None:
    """Make a token worthless."""
    import re

    from oscirc import composition
    from oscirc_blockstore.errors import UsageError

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identifier):
        raise UsageError(f"not a token's id: {identifier[:80]!r}", hint="oscirc token list shows them")
    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        rest.call("DELETE", f"tokens/{identifier}")
    say(f"token {identifier} revoked")
