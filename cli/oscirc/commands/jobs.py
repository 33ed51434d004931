"""`oscirc jobs list | show | retry | cancel`: the background jobs of a server, over its API."""

from __future__ import annotations

from pathlib import Path

import click

from oscirc.options import json_option, token_file_option
from oscirc.output import human_bytes, print_json, print_table, say

_remote_option = click.option("--remote", "remote_name", help="Which remote (default: the only one).")
_STATES = click.Choice(["queued", "running", "done", "failed", "cancelled"])
_ERROR_CHARS = 60


@click.group()
def jobs() -> None:
    """Background jobs: packs and bundles that a server makes. An administrator sees all, a publisher its own."""


@jobs.command("list")
@click.option("--state", type=_STATES, help="Only those that are in this state.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="At most so many, the newest."
)
@_remote_option
@token_file_option
@json_option
def list_jobs(
    *, state: str | None, limit: int, remote_name: str | None, token_file: Path | None, as_json: bool
) -> None:
    """List jobs, the newest first.

    \b
    Example:
      oscirc jobs list --state failed
    """
    from oscirc import composition

    query = f"jobs?limit={limit}" + (f"&state={state}" if state else "")
    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        answer = rest.call_json("GET", query)
    if as_json:
        print_json(answer)
        return
    listed = answer.get("jobs")
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    if not found:
        say("no jobs")
        return
    rows = [
        (_text(each, "id"), _what(each), _text(each, "state"), _text(each, "created"), _told(each)) for each in found
    ]
    print_table(("ID", "WHAT", "STATE", "ASKED FOR", ""), rows)


@jobs.command()
@click.argument("job", metavar="ID", type=click.IntRange(min=1))
@_remote_option
@token_file_option
@json_option
def show(job: int, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """What a job is to make, how far it is, what came of it.

    \b
    Example:
      oscirc jobs show 17
    """
    _call("GET", f"jobs/{job}", remote_name, token_file, as_json=as_json)


@jobs.command()
@click.argument("job", metavar="ID", type=click.IntRange(min=1))
@_remote_option
@token_file_option
@json_option
def retry(job: int, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Let a job that failed or was cancelled be tried again.

    \b
    Example:
      oscirc jobs retry 17
    """
    _call("POST", f"jobs/{job}/retry", remote_name, token_file, as_json=as_json)


@jobs.command()
@click.argument("job", metavar="ID", type=click.IntRange(min=1))
@_remote_option
@token_file_option
@json_option
def cancel(job: int, *, remote_name: str | None, token_file: Path | None, as_json: bool) -> None:
    """End a job that waits or runs; what it made so far is dropped. What has ended stays as it is.

    \b
    Example:
      oscirc jobs cancel 17
    """
    _call("POST", f"jobs/{job}/cancel", remote_name, token_file, as_json=as_json)


def _call(method: str, path: str, remote_name: str | None, token_file: Path | None, *, as_json: bool) -> None:
    from oscirc import composition

    with composition.rest_client(composition.only_remote(remote_name), token_file) as rest:
        answer = rest.call_json(method, path)
    if as_json:
        print_json(answer)
        return
    rows = [("what", _what(answer)), ("state", _text(answer, "state")), ("attempts", _text(answer, "attempts"))]
    rows += [(key.replace("_", " "), _text(answer, key)) for key in ("requested_by", "created", "started", "ended")]
    result = answer.get("result")
    rows += [(str(key), str(value)) for key, value in result.items()] if isinstance(result, dict) else []
    rows += [("error", _text(answer, "error"))]
    for key, value in rows:
        if value:
            click.echo(f"{key:<13}{value}")


def _text(job: dict[str, object], key: str) -> str:
    value = job.get(key)
    return "" if value is None else str(value)


def _what(job: dict[str, object]) -> str:
    """A job in words: `delta alice/debian@2.0 from 1.0`."""
    version = f"@{_text(job, 'version')}" if job.get("version") else ""
    of = _text(job, "of")
    words = f" from {of}" if job.get("kind") == "delta" else f" of {of}" if of else ""
    return f"{_text(job, 'kind')} {_text(job, 'publisher')}/{_text(job, 'image')}{version}{words}"


def _told(job: dict[str, object]) -> str:
    """What came of it, in a few words."""
    error, result = _text(job, "error"), job.get("result")
    if error:
        return error if len(error) <= _ERROR_CHARS else error[: _ERROR_CHARS - 1] + "…"
    if not isinstance(result, dict):
        return ""
    length = result.get("length")
    return human_bytes(length) if isinstance(length, int) else str(result.get("nothing", ""))
