"""`oscirc remote add | list | remove | mirrors` and `oscirc login`: the repositories that this workstation trusts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oscirc.commands.mirrors import mirrors
from oscirc.options import json_option, token_file_option
from oscirc.output import print_done, print_json, print_table, say
from oscirc.pipelines import oidc_options

if TYPE_CHECKING:
    from oscirc_remote.remotes import Remote


def _facts(remote: Remote) -> dict[str, object]:
    stated = remote.facts()
    return {
        "name": remote.name,
        "url": remote.url,
        "line": remote.line,
        "title": stated.name if stated else "",
        "mirrors": list(remote.sources()[1:]),
        "publishers": sorted(remote.known_publishers() or ()),
        "logged_in": remote.token() is not None,
    }


@click.group()
def remote() -> None:
    """The repositories that this workstation knows, each pinned to its root of trust."""


@remote.command()
@click.argument("name")
@click.argument("line", metavar="URL#sha256=…")
@json_option
def add(name: str, line: str, *, as_json: bool) -> None:
    """Trust a repository under a name of your own. Quote the line: a shell may take # for a comment.

    \b
    Example:
      oscirc remote add example 'https://images.example/repo#sha256=4f1b…'
    """
    from oscirc_remote.remotes import Remotes

    added = Remotes().add(name, line)
    if as_json:
        print_json(_facts(added))
    else:
        say(f"remote {name}: {added.url}, {len(added.known_publishers() or ())} publishers")


@remote.command("list")
@json_option
def list_remotes(*, as_json: bool) -> None:
    """List remotes.

    \b
    Example:
      oscirc remote list
    """
    from oscirc_remote.remotes import Remotes

    found = [_facts(item) for item in Remotes().list()]
    if as_json:
        print_json({"remotes": found})
    elif not found:
        say("no remotes; add one with: oscirc remote add NAME 'URL#sha256=…'")
    else:
        rows = [(str(f["name"]), str(f["line"]), "yes" if f["logged_in"] else "no") for f in found]
        print_table(("NAME", "LINE", "TOKEN"), rows)


@remote.command()
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Forget a remote, its trust state, receipts and token. Cached blocks and mounts stay.

    \b
    Example:
      oscirc remote remove example
    """
    from oscirc_remote.remotes import Remotes

    Remotes().remove(name)
    print_done({"removed": name}, f"remote {name} removed", as_json=as_json)


remote.add_command(mirrors)


@click.command()
@click.argument("name", metavar="REMOTE")
@token_file_option
@oidc_options
@click.option("--publisher", help="As whom to publish, with a pipeline's JWT.")
@json_option
def login(
    name: str,
    *,
    token_file: Path | None,
    oidc_token_file: Path | None,
    oidc_token_env: str | None,
    publisher: str | None,
    as_json: bool,
) -> None:
    """Store a token for publishing to a remote: asked for, or read from --token-file (- is standard input).

    \b
    Example:
      oscirc login example
      oscirc login example --publisher debian --oidc-token-env CI_JWT
    """
    from oscirc import pipelines
    from oscirc.options import token
    from oscirc_blockstore import token_text
    from oscirc_blockstore.errors import UsageError
    from oscirc_remote.remotes import Remotes

    known = Remotes().load(name)
    jwt = pipelines.jwt_of(oidc_token_file, oidc_token_env)
    if jwt is not None:
        if publisher is None:
            raise UsageError("as whom does the pipeline publish?", hint="give --publisher NAME")
        text = pipelines.token_for(known, publisher, jwt)
    elif token_file is None and sys.stdin.isatty():
        text = str(click.prompt(f"Token for {name}", hide_input=True, err=True))
    else:
        text = token(None, name, token_file if token_file is not None else Path("-"))
    if not text.startswith(token_text.PREFIX):
        raise UsageError("that is not a token of an oscirc server", hint=f"tokens start with {token_text.PREFIX}")
    if not token_text.is_whole(text):
        raise UsageError("that is not a whole token: mistyped, or cut off?", hint="paste it as it was shown")
    known.store_token(text)
    print_done({"remote": name, "logged_in": True}, f"token stored for {name}", as_json=as_json)
