"""`oscirc quota show | list | set | clear | check`: what publishers keep on a server, and how much they may."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.administering import api_call, listed, remote_option
from oscirc.options import json_option, token_file_option
from oscirc.output import human_bytes, print_done, print_json, print_table, say
from oscirc.server_options import blocks_option, data_option, database_option

_DRIFT = 7  # bytes that are not what is recorded of them


@click.group()
def quota() -> None:
    """What a publisher keeps: unique bytes (distinct blocks, uncompressed) and logical bytes (all versions' data)."""


def _bytes(value: object) -> str:
    return human_bytes(value) if isinstance(value, int) else "no limit"


def _row(item: dict[str, object]) -> list[str]:
    limits = item.get("limits")
    allowed = limits if isinstance(limits, dict) else {}
    kinds = ("unique_bytes", "logical_bytes")
    used = [f"{_bytes(item.get(kind))} of {_bytes(allowed.get(kind))}" for kind in kinds]
    return [str(item.get("publisher")), *used, "a deletion is being counted" if item.get("counting") else ""]


def _path(publisher: str) -> str:
    from oscirc_blockstore.names import check_publisher

    return f"publishers/{check_publisher(publisher)}/quota"


@quota.command()
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def show(publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Show what a publisher keeps and may keep.

    \b
    Example:
      oscirc quota show debian
    """
    answer = api_call(remote_name, token_file, "GET", _path(publisher))
    if as_json:
        print_json(answer)
    else:
        print_table(("PUBLISHER", "UNIQUE", "LOGICAL", ""), [_row(answer)])


@quota.command("list")
@remote_option
@token_file_option
@json_option
def list_quotas(*, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """An administrator's: what every publisher keeps and may keep.

    \b
    Example:
      oscirc quota list
    """
    answer = listed(remote_name, token_file, "quotas", "publishers")
    if as_json:
        print_json(answer)
        return
    found = answer.get("publishers")
    rows = [_row(item) for item in (found if isinstance(found, list) else [])]
    print_table(("PUBLISHER", "UNIQUE", "LOGICAL", ""), rows)
    default = answer.get("default")
    limits = default if isinstance(default, dict) else {}
    say(f"others: unique {_bytes(limits.get('unique_bytes'))}, logical {_bytes(limits.get('logical_bytes'))}")


def _limit(text: str) -> int | None:
    from oscirc_remote.amounts import parse_size

    return None if text == "none" else parse_size(text)


@quota.command("set")
@click.argument("publisher", required=False)
@click.option("--others", is_flag=True, help="Every publisher that has no limits of its own.")
@click.option("--unique", required=True, metavar="SIZE", help="Distinct blocks, uncompressed: 50G, or none.")
@click.option("--logical", required=True, metavar="SIZE", help="All versions' data: 500G, or none.")
@remote_option
@token_file_option
@json_option
def set_quota(
    publisher: str | None,
    *,
    others: bool,
    unique: str,
    logical: str,
    remote_name: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """An administrator's: limit what a publisher may keep. What is there stays; nothing that would be more comes.

    \b
    Example:
      oscirc quota set debian --unique 50G --logical 500G
      oscirc quota set --others --unique 10G --logical none
    """
    from oscirc_blockstore.errors import UsageError

    if others == (publisher is not None):
        raise UsageError("whose limits?", hint="name a publisher, or give --others")
    limits = {"unique_bytes": _limit(unique), "logical_bytes": _limit(logical)}
    api_call(remote_name, token_file, "PUT", "quotas/default" if publisher is None else _path(publisher), limits)
    said = f"unique {_bytes(limits['unique_bytes'])}, logical {_bytes(limits['logical_bytes'])}"
    print_done({"publisher": publisher, "limits": limits}, f"{publisher or 'others'}: {said}", as_json=as_json)


@quota.command()
@click.argument("publisher")
@remote_option
@token_file_option
@json_option
def clear(publisher: str, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """An administrator's: let the limits of all others hold for a publisher.

    \b
    Example:
      oscirc quota clear debian
    """
    api_call(remote_name, token_file, "DELETE", _path(publisher))
    facts = {"publisher": publisher, "limits": None}
    print_done(facts, f"{publisher} has no limits of its own", as_json=as_json)


@quota.command()
@click.argument("publisher", required=False)
@data_option
@database_option
@blocks_option
@click.option("--repair", is_flag=True, help="Record what was counted.")
@json_option
def check(
    publisher: str | None, *, data: Path, database: str | None, blocks: str | None, repair: bool, as_json: bool
) -> None:
    """On the server's machine: count what publishers keep from their signed tables, and compare.

    Ends with exit code 7 where that differs and is not repaired.

    \b
    Example:
      oscirc quota check --data /srv/oscirc --repair
    """
    from dataclasses import asdict

    from oscirc_server.administration import Administration

    administration = Administration(data, database_url=database, blocks_url=blocks)
    counted = administration.check_quotas(publisher, repair=repair)
    if as_json:
        print_json({"publishers": [asdict(each) | {"drifted": each.drifted} for each in counted], "repaired": repair})
    else:
        rows = [
            (
                each.publisher,
                f"{each.recorded_unique} / {each.counted_unique}",
                f"{each.recorded_logical} / {each.counted_logical}",
                "differs" if each.drifted else "right",
            )
            for each in counted
        ]
        print_table(("PUBLISHER", "UNIQUE recorded / counted", "LOGICAL recorded / counted", ""), rows)
    if any(each.drifted for each in counted) and not repair:
        raise click.exceptions.Exit(_DRIFT)
