"""`oscirc token create | list | revoke | whoami`: against a running server."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.administering import listed
from oscirc.options import json_option, token_file_option
from oscirc.output import print_done, print_json, print_table, say

_remote_option = click.option("--remote", "remote_name", help="Which remote (default: the only one).")


@click.group()
def token() -> None:
    """Tokens: who may ask the server to stage uploads. They never stand for a signature."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="admin, manage:PUBLISHER, publish:PUBLISHER or read:PUBLISHER. Repeatable. Default: publish, for a robot's.",
)
@click.option("--account", help="Whose it is: a user or a robot, PUBLISHER/NAME (default: yours).")
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="Valid for so many days.")
@_remote_option
@token_file_option
@json_option
def create(
    name: str,
    *,
    scopes: tuple[str, ...],
    account: str | None,
    days: int,
    remote_name: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a token; it is printed once.

    \b
    Example:
      oscirc token create alice-laptop --scope publish:alice
      oscirc token create nightly --account debian/nightly --days 30
    """
    from oscirc import composition
    from oscirc_blockstore.errors import UsageError

    publisher, slash, _ = (account or "").partition("/")
    if not scopes and not slash:
        raise UsageError("what may the token do?", hint="give --scope publish:PUBLISHER, or the --account of a robot")
    wanted = list(scopes) or [f"publish:{publisher}"]
    document = {"name": name, "scopes": wanted, "lifetime_s": days * 86_400, "account": account}
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
    """List the tokens that you may revoke, without their secrets.

    \b
    Example:
      oscirc token list
    """
    answer = listed(remote_name, token_file, "tokens", "tokens")
    if as_json:
        print_json(answer)
        return
    found = answer.get("tokens")
    columns = ("id", "name", "account", "scopes", "expires", "last_used", "revoked")
    rows = [[_cell(item.get(column)) for column in columns] for item in (found if isinstance(found, list) else [])]
    print_table([column.upper() for column in columns], rows)


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


@token.command()
@click.argument("identifier", metavar="ID")
@_remote_option
@token_file_option
@json_option
def revoke(identifier: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make a token worthless.

    \b
    Example:
      oscirc token revoke 7f3c0a5d9e1b48c2
    """
    import re

    from oscirc import composition
    from oscirc_blockstore.errors import UsageError

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identifier):
        raise UsageError(f"not a token's id: {identifier[:80]!r}", hint="oscirc token list shows them")
    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        rest.call("DELETE", f"tokens/{identifier}")
    print_done({"revoked": identifier}, f"token {identifier} revoked", as_json=as_json)


@token.command()
@_remote_option
@token_file_option
@json_option
def whoami(*, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Say whose the stored token is and what it may do now.

    \b
    Example:
      oscirc token whoami
    """
    from oscirc import composition

    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        answer = rest.call_json("GET", "whoami")
    if as_json:
        print_json(answer)
        return
    click.echo(f"account: {answer.get('account') or 'none'}")
    click.echo(f"token:   {answer.get('token')}")
    click.echo(f"may:     {_cell(answer.get('scopes')) or 'nothing'}")
