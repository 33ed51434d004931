"""Where a server's things are, for every command that works on them: options, or the environment of its service.

The environment suits a service (`deploy/oscirc.env`) and what runs in its container: `oscirc serve status` needs no
option there. A database URL with a password belongs nowhere but there, or better into a password file that it names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from oscirc_blockstore.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])


def data_option(command: _Command) -> _Command:
    """`--data`, OSCIRC_DATA."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("oscirc-data"),
        envvar="OSCIRC_DATA",
        show_envvar=True,
        show_default=True,
        help="The server's data directory.",
    )(command)


def _without_password(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    """A database URL, which holds no password where every user of the machine can read it."""
    name = parameter.name or ""
    if url and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        try:
            password = urlsplit(url).password
        except ValueError:
            password = None
        if password or "password=" in url:
            raise UsageError(
                "a password in --database can be read by every user of this machine",
                hint="put the URL into OSCIRC_DATABASE, or the password into PGPASSWORD or a file named by PGPASSFILE",
            )
    return url


def database_option(command: _Command) -> _Command:
    """`--database`, OSCIRC_DATABASE."""
    return click.option(
        "--database",
        envvar="OSCIRC_DATABASE",
        show_envvar=True,
        callback=_without_password,
        help="Database URL (default: SQLite in the data directory).",
    )(command)


def blocks_option(command: _Command) -> _Command:
    """`--blocks`, OSCIRC_BLOCKS."""
    return click.option(
        "--blocks",
        envvar="OSCIRC_BLOCKS",
        show_envvar=True,
        help="Block storage URL (default: the data directory).",
    )(command)


def keys_option(
    explained: str = "Directory of the root and targets keys (default: inside the data directory; better: elsewhere).",
) -> Callable[[_Command], _Command]:
    """`--keys`: where offline keys are, which need not be there yet; each command explains which it needs."""
    return click.option("--keys", "keys_directory", type=click.Path(file_okay=False, path_type=Path), help=explained)


def direct_reads_option(command: _Command) -> _Command:
    """`--direct-reads`, OSCIRC_DIRECT_READS."""
    return click.option(
        "--direct-reads",
        envvar="OSCIRC_DIRECT_READS",
        show_envvar=True,
        metavar="signed|URL",
        help="Send readers of blocks to the bucket: by signed URLs, or to the public URL of it or of a CDN.",
    )(command)


def log_options(command: _Command) -> _Command:
    """`--log-level` and `--log-format`, OSCIRC_LOG_FORMAT."""
    form = click.option(
        "--log-format",
        type=click.Choice(["lines", "json"]),
        default="lines",
        envvar="OSCIRC_LOG_FORMAT",
        show_envvar=True,
        show_default=True,
        help="One line an event: key=value, or one JSON object.",
    )
    level = click.option(
        "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
    )
    return level(form(command))
