"""`oscirc oidc`: which CI pipelines may publish without a stored token."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import click

from oscirc.administering import api_call, remote_option
from oscirc.options import json_option, token_file_option
from oscirc.output import print_done, print_json, print_table, say


@click.group()
def oidc() -> None:
    """CI pipelines that publish with a JWT of their own: whose JWTs are trusted, and what they must say."""


def _path(publisher: str) -> str:
    from oscirc_blockstore.names import check_publisher

    return f"publishers/{check_publisher(publisher)}/oidc-rules"


@oidc.command()
@click.argument("issuer")
@click.option("--jwks", help="Where its keys are (default: its discovery document says).")
@remote_option
@token_file_option
@json_option
def trust(issuer: str, *, jwks: str | None, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """An administrator's: take JWTs of an issuer where publishers' rules allow it.

    \b
    Example:
      oscirc oidc trust https://token.actions.githubusercontent.com
    """
    api_call(remote_name, token_file, "PUT", "oidc/issuers", {"issuer": issuer, "jwks": jwks})
    said = f"{issuer} is trusted; a publisher's owner lets pipelines in: oscirc oidc allow"
    print_done({"issuer": issuer, "trusted": True}, said, as_json=as_json)


@oidc.command()
@click.argument("issuer")
@remote_option
@token_file_option
@json_option
def distrust(issuer: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """An administrator's: take no more JWTs of an issuer; tokens that were given for them end.

    \b
    Example:
      oscirc oidc distrust https://gitlab.example
    """
    api_call(remote_name, token_file, "DELETE", f"oidc/issuers?{urlencode({'issuer': issuer})}")
    print_done({"issuer": issuer, "trusted": False}, f"{issuer} is trusted no more", as_json=as_json)


@oidc.command()
@remote_option
@token_file_option
@json_option
def issuers(*, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """An administrator's: list the issuers that are trusted.

    \b
    Example:
      oscirc oidc issuers
    """
    answer = api_call(remote_name, token_file, "GET", "oidc/issuers")
    if as_json:
        print_json(answer)
        return
    found = answer.get("issuers")
    rows = [(str(item.get("issuer")), str(item.get("jwks") or "by discovery")) for item in _items(found)]
    print_table(("ISSUER", "KEYS"), rows)


def _items(found: object) -> list[dict[str, object]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    from oscirc_blockstore.errors import UsageError

    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in pairs:
            raise UsageError(f"cannot read {option} {text[:80]!r}", hint="write NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


@oidc.command()
@click.argument("publisher")
@click.argument("name")
@click.option("--issuer", required=True, help="Whose JWTs: an issuer that is trusted.")
@click.option("--claim", "claims", multiple=True, metavar="NAME=VALUE", help="What a claim must be. Repeatable.")
@click.option(
    "--claim-prefix",
    "prefixes",
    multiple=True,
    metavar="NAME=VALUE/",
    help="How it begins, up to a / or :",
)
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 60), help="How long its tokens live.")
@remote_option
@token_file_option
@json_option
def allow(
    publisher: str,
    name: str,
    *,
    issuer: str,
    claims: tuple[str, ...],
    prefixes: tuple[str, ...],
    minutes: int,
    remote_name: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Let pipelines publish as a publisher. For its owners and administrators.

    \b
    Example:
      oscirc oidc allow debian nightly --issuer https://gitlab.com --claim project_path=example/images
      oscirc oidc allow debian tags --issuer https://gitlab.com --claim project_id=12345 --claim ref_type=tag
    """
    document = {
        "name": name,
        "issuer": issuer,
        "claims": _pairs(claims, "--claim"),
        "claim_prefixes": _pairs(prefixes, "--claim-prefix"),
        "lifetime_s": minutes * 60,
    }
    made = api_call(remote_name, token_file, "POST", _path(publisher), document)
    if as_json:
        print_json(made)
    else:
        say(f"such pipelines may publish as {publisher} (rule {made.get('id')})")


@oidc.command()
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def rules(publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """List which pipelines may publish as a publisher.

    \b
    Example:
      oscirc oidc rules debian
    """
    answer = api_call(remote_name, token_file, "GET", _path(publisher))
    if as_json:
        print_json(answer)
        return
    rows = []
    for item in _items(answer.get("rules")):
        whole, begins = item.get("claims"), item.get("claim_prefixes")
        said = [f"{key}={value}" for key, value in (whole.items() if isinstance(whole, dict) else ())]
        said += [f"{key}={value}…" for key, value in (begins.items() if isinstance(begins, dict) else ())]
        rows.append((str(item.get("id")), str(item.get("name")), str(item.get("issuer")), ", ".join(said)))
    print_table(("ID", "NAME", "ISSUER", "CLAIMS"), rows)


@oidc.command()
@click.argument("publisher")
@click.argument("identifier", metavar="ID")
@remote_option
@token_file_option
@json_option
def forbid(publisher: str, identifier: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Remove a rule; tokens that it gave out end with it.

    \b
    Example:
      oscirc oidc forbid debian 7f3c0a5d9e1b48c2
    """
    import re

    from oscirc_blockstore.errors import UsageError

    if not re.fullmatch(r"[0-9a-f]{1,64}", identifier):
        raise UsageError(f"not a rule's id: {identifier[:80]!r}", hint="oscirc oidc rules shows them")
    api_call(remote_name, token_file, "DELETE", f"{_path(publisher)}/{identifier}")
    print_done({"publisher": publisher, "removed": identifier}, f"rule {identifier} removed", as_json=as_json)
