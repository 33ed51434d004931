"""What commands that look after a server share: which remote, and one call of its API."""

from __future__ import annotations

import json
from pathlib import Path

import click

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
