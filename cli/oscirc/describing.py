"""The options with which a publisher says what an image is, and the change that they make; `publish` and `describe`.

What is not given stays as it was, from version to version; an empty text takes a field back. What no index can hold
is refused before anything is read or sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import click

if TYPE_CHECKING:
    from oscirc_blockstore.about import About

    Say = Callable[[About], About]
    """Makes what is said of what was said."""

R = TypeVar("R")

_OPTIONS: Final = (
    click.option("--title", help="What the image is called on pages; '' takes it back, as with all of these."),
    click.option("--summary", help="What it is, in a sentence."),
    click.option(
        "--readme",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file of Markdown, at most 64 KiB, shown on the image's page; an empty one takes it back.",
    ),
    click.option("--licence", help="Under what terms: an SPDX expression, or a short text."),
    click.option("--homepage", metavar="URL", help="An address for more: https only."),
    click.option("--kind", type=click.Choice(["desktop", "server", "other", ""]), help="What it is made for."),
    click.option(
        "--end-of-life",
        "ends_of_life",
        multiple=True,
        metavar="[OS-VERSION=]DATE",
        help="Day on which support ends, 2028-06-30; of one version of the system, or of all others. Repeatable.",
    ),
)
_TEXTS: Final = ("title", "summary", "licence", "homepage", "kind")


def about_options(command: Callable[..., R]) -> Callable[..., R]:
    """Adds the options to a command, which gets one argument for them all, `say`: the change, or None for none."""

    @functools.wraps(command)
    def run(*args: object, **given: object) -> R:
        texts = {name: given.pop(name) for name in _TEXTS}
        readme, ends = given.pop("readme"), given.pop("ends_of_life")
        said = {name: str(text) for name, text in texts.items() if text is not None}
        if isinstance(readme, Path):
            said["readme"] = _read(readme)
        dated = [str(each) for each in ends] if isinstance(ends, tuple) else []
        return command(*args, say=saying(said, dated), **given)

    decorated = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def saying(texts: dict[str, str], ends_of_life: list[str]) -> Say | None:
    """What texts by field and `[VERSION=]DATE` change, None for nothing; `UsageError` for what cannot be said."""
    from dataclasses import replace

    from oscirc_blockstore import about
    from oscirc_blockstore.errors import DocumentRefusedError, UsageError

    if not texts and not ends_of_life:
        return None
    ends = {version: day for version, _, day in (each.rpartition("=") for each in ends_of_life)}

    def change(said: About) -> About:
        kept = {version: day for version, day in {**said.end_of_life, **ends}.items() if day}
        return replace(said, **texts, end_of_life=MappingProxyType(kept))

    try:
        about.check(change(about.NOTHING_SAID))
    except DocumentRefusedError as error:
        raise UsageError(str(error), hint=error.hint) from None
    return change


def about_lines(said: About | None, system_version: str, today: date) -> Iterator[tuple[str, str]]:
    """What was said, as lines of a name and a text; nothing for what was not."""
    if said is None:
        return
    for name in ("title", "summary", "kind", "licence", "homepage"):
        if text := getattr(said, name):
            yield name, text
    if ends := said.ends(system_version):
        ended = date.fromisoformat(ends) < today
        yield "support", f"ended on {ends}: no security updates any more" if ended else f"until {ends}"
    if said.readme:
        yield "readme", f"{len(said.readme.splitlines())} lines: oscirc show --readme"


def _read(file: Path) -> str:
    from oscirc.text_files import bounded_text
    from oscirc_blockstore.about import MAX_README_BYTES

    text = bounded_text(file, MAX_README_BYTES, "the README", hint="shorten it, and link to the rest")
    return text.removeprefix("\ufeff").strip()  # a byte order mark, as some editors write it
