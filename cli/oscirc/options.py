"""Options that several commands share, and how secrets come in: environment, file or prompt, never an argument."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from oscirc.text_files import bounded_text
from oscirc_blockstore.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

PASSPHRASE_VARIABLE = "OSCIRC_KEY_PASSPHRASE"  # noqa: S105  # the variable's name
TOKEN_VARIABLE = "OSCIRC_TOKEN"  # noqa: S105  # the variable's name
MINIMUM_PASSPHRASE = 8
MAX_SECRET_BYTES = 65_536
MAX_SECONDS = 86_400


class Seconds(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A time that something may take: finite, and more than nothing."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds, or a usage error."""
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not 0 < seconds <= MAX_SECONDS:
            self.fail(f"{value!r} is not a time: more than 0 and at most {MAX_SECONDS} seconds", param, ctx)
        return seconds


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A whole number of seconds, minutes, hours or days: `90s`, `15m`, `12h`, `30d`; `0` is none at all."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds, or a usage error."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhd])|0", str(value))
        if match is None:
            self.fail(f"{value!r} is not a time such as 90s, 15m, 12h or 30d", param, ctx)
        return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]] if match[1] else 0


class Regex(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A regular expression, refused before anything is started for it; its text is handed on."""

    name = "regex"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, or a usage error that says what is wrong with it."""
        text = str(value)
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as error:
            self.fail(f"{text!r} is not a regular expression: {error}", param, ctx)
        return text


def json_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--json`: facts as JSON on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")(function)


def passphrase_file_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--passphrase-file`: where a key's passphrase stands."""
    return click.option(
        "--passphrase-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"File that holds the key's passphrase (default: ${PASSPHRASE_VARIABLE}, else asked for).",
    )(function)


KEY_HELP = "Name of the publisher key to sign with (oscirc key list); several with commas, where several must sign."


def key_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--key`: which publisher key signs."""
    return click.option("--key", required=True, help=KEY_HELP)(function)


def key_unless_dry_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--key` of a command with an eager `--dry-run`, which signs nothing and so needs none: then it is empty."""

    def check(context: click.Context, parameter: click.Parameter, given: str | None) -> str:
        if given is None and not context.params.get("dry_run"):
            raise click.MissingParameter(ctx=context, param=parameter)
        return given or ""

    return click.option("--key", help=KEY_HELP, callback=check)(function)


def data_instead_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--data`: the server's own directory, instead of a remote."""
    return click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="On the server's machine: its data directory, instead of a remote.",
    )(function)


def database_beside_data_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--database`, beside `--data`."""
    return click.option("--database", help="With --data: the database URL (default: SQLite in it).")(function)


def blocks_beside_data_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--blocks`, beside `--data`."""
    return click.option("--blocks", help="With --data: the block storage URL (default: in it).")(function)


def token_file_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--token-file`: where a token stands."""
    return click.option(
        "--token-file",
        type=click.Path(allow_dash=True, path_type=Path),
        help=f"File that holds a token (default: ${TOKEN_VARIABLE}, else what oscirc login stored).",
    )(function)


def recording_options(prefix: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """How boots are recorded: `--until`, `--settle`, `--runs`, `--timeout`, `--accel`, each with `prefix` before it."""

    def add(function: Callable[P, R]) -> Callable[P, R]:
        for option in reversed(
            [
                click.option(
                    f"--{prefix}until",
                    type=Regex(),
                    default="login:",
                    show_default=True,
                    metavar="REGEX",
                    help="What the console shows when a boot is over.",
                ),
                click.option(
                    f"--{prefix}settle",
                    type=Seconds(),
                    default=3.0,
                    show_default=True,
                    help="Seconds to go on recording after that.",
                ),
                click.option(
                    f"--{prefix}runs",
                    type=click.IntRange(1, 20),
                    default=2,
                    show_default=True,
                    help="Boots to merge, each on another machine.",
                ),
                click.option(
                    f"--{prefix}timeout",
                    type=Seconds(),
                    default=300.0,
                    show_default=True,
                    help="Seconds that a recorded boot may take.",
                ),
                click.option(
                    f"--{prefix}accel",
                    type=click.Choice(["auto", "kvm", "tcg"]),
                    default="auto",
                    show_default=True,
                    help="How recorded boots run.",
                ),
            ]
        ):
            function = option(function)
        return function

    return add


def secret_from_file(path: Path, what: str) -> str:
    """A secret in the first line of standard input (`-`) or in a file; one that everybody can read is warned of."""
    if str(path) == "-":
        return sys.stdin.readline().strip("\r\n")
    secret = bounded_text(path, MAX_SECRET_BYTES, what).strip("\r\n")
    with contextlib.suppress(OSError):
        if path.stat().st_mode & stat.S_IROTH:
            click.echo(f"warning: {path} can be read by everybody on this machine", err=True)
    return secret


def passphrase(file: Path | None, *, what: str, new: bool = False) -> str:
    """The passphrase of `what`; a new one is asked for twice and must have at least 8 characters."""
    if file is not None:
        value = secret_from_file(file, "the passphrase")
    elif PASSPHRASE_VARIABLE in os.environ:
        value = os.environ[PASSPHRASE_VARIABLE]
    elif sys.stdin.isatty():
        value = str(click.prompt(f"Passphrase for {what}", hide_input=True, confirmation_prompt=new, err=True))
    else:
        raise UsageError(
            f"no passphrase for {what}",
            hint=f"set {PASSPHRASE_VARIABLE}, give --passphrase-file FILE, or run this in a terminal",
        )
    if new and len(value) < MINIMUM_PASSPHRASE:
        raise UsageError(f"the passphrase is too short: at least {MINIMUM_PASSPHRASE} characters")
    return value


def token(stored: str | None, remote: str, file: Path | None) -> str:
    """The bearer token for a remote: from a file, the environment, or what `oscirc login` stored."""
    if file is not None:
        return secret_from_file(file, "the token").strip()
    if TOKEN_VARIABLE in os.environ:
        return os.environ[TOKEN_VARIABLE].strip()
    if stored is None:
        raise UsageError(f"no token for the remote {remote!r}", hint=f"run: oscirc login {remote}")
    return stored
