"""What commands that look after a server share: which remote, one call of its API, and lists that come in pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

if TYPE_CHECKING:
    from oscirc_publisher.rest import RestClient

PAGE_ENTRIES = 200
MOST_PAGES = 5000

remote_option = click.option("--remote", "remote_name", help="Which remote (default: the only one).")


def api_call(
    remote_name: str | None, token_file: Path | None, method: str, path: str, document: object | None = None
) -> dict[str, object]:
    """One call of the API; an answer without a body is an empty object."""
    from oscirc import composition
    from oscirc_publisher.problems import parse_object
    from oscirc_publisher.rest import JSON, Body

    body = Body() if document is None else Body.of(json.dumps(document).encode(), JSON)
    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        raw = rest.call(method, path, body)
    return parse_object(raw) if raw else {}


def all_pages(rest: RestClient, path: str, name: str) -> dict[str, object]:
    """A list of the API with the entries of all its pages under `name`, and without the place of a next one.

    A server that leads in circles is refused, one that never ends after a million entries.
    """
    from oscirc_blockstore.errors import DocumentRefusedError

    entries: list[object] = []
    after = ""
    for _ in range(MOST_PAGES):
        query = f"?limit={PAGE_ENTRIES}" + (f"&after={quote(after, safe='')}" if after else "")
        answer = rest.call_json("GET", path + query)
        found = answer.get(name)
        entries += found if isinstance(found, list) else []
        place = answer.get("next")
        if place is None:
            return {**{key: value for key, value in answer.items() if key != "next"}, name: entries}
        if not isinstance(place, str) or not place or place == after:
            break
        after = place
    raise DocumentRefusedError(f"the server's list of {name} does not come to an end")


def listed(remote_name: str | None, token_file: Path | None, path: str, name: str) -> dict[str, object]:
    """The same, of a remote by its name."""
    from oscirc import composition

    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        return all_pages(rest, path, name)
