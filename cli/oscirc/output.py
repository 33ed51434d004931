"""What a user sees: facts as text or JSON on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn, Protocol

import click

_KIB = 1024


def human_bytes(count: float) -> str:
    """A byte count in the largest binary unit that leaves at least one digit before the point: `66.7 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} TiB"


def print_json(facts: object, *, indented: bool = True) -> None:
    """Facts for programs: one JSON document; long lists of small things are better not indented."""
    click.echo(json.dumps(facts, indent=2 if indented else None, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Facts for people: columns as wide as they need to be."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def warn(message: str) -> None:
    """Something the user should know and need not act on."""
    click.echo(f"warning: {message}", err=True)


def print_done(facts: object, message: str, *, as_json: bool) -> None:
    """What was done: as JSON for programs, in words for people."""
    if as_json:
        print_json(facts)
    else:
        say(message)


def say(message: str) -> None:
    """Progress in words, on standard error."""
    click.echo(message, err=True)


class Bar(Protocol):
    """What a progress bar can be told."""

    total: float | None

    def update(self, n: float | None = 1) -> bool | None:
        """`n` more are done."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """A short remark at the bar's end."""

    def reset(self, total: float | None = None) -> None:
        """Begin anew, with that total."""


@contextlib.contextmanager
def progress(
    what: str, total: int | None, *, quiet: bool = False, unit: str = "B", threads: bool = True
) -> Iterator[Bar]:
    """A progress bar (in bytes unless said otherwise) on standard error, drawn only when that is a terminal.

    Without `threads` it starts none: for who is about to fork, and refreshes the bar often enough himself.
    """
    from tqdm import tqdm  # 30 ms that other commands need not pay

    bars: type[tqdm[NoReturn]] = tqdm if threads else type("_Unwatched", (tqdm,), {"monitor_interval": 0})
    with bars(
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=_KIB,
        disable=quiet or not sys.stderr.isatty(),
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        yield bar
