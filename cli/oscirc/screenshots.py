"""Pictures that a recorded boot showed: looked at, made into files, sent beside a version.

A display that shows nothing is told of and not sent unless the user insists. Nothing here undoes what was recorded or
released: `record` has written its profile before it sends the picture, and of a publication a picture that the server
does not take is a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from oscirc.output import human_bytes, say, warn
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    LocalError,
    OscircError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from oscirc.composition import VersionReference
    from oscirc_blockstore.digests import Digest
    from oscirc_blockstore.png_making import Picture
    from oscirc_publisher.accelerating import VersionName
    from oscirc_publisher.rest import RestClient

MAX_FILE_BYTES = 16 << 20
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for; `alt` is empty where the default words are to be taken."""

    wanted: bool
    alt: str = ""
    blank_too: bool = False
    _seen: list[Picture] = field(default_factory=list)

    def look(self, picture: Picture) -> None:
        """Take what the display showed."""
        self._seen[:] = [picture]

    def has_seen(self) -> bool:
        """Whether there is a picture."""
        return bool(self._seen)

    def words(self, name: VersionName, until: str) -> str:
        """The user's, or what the picture is of: a prompt, where that is what was waited for."""
        from oscirc.recording import LOGIN

        where = "at its login prompt" if LOGIN in until else "after its start"
        return self.alt or f"Console of {name.publisher}/{name.image} {name.version} {where}"

    def png(self) -> bytes | None:
        """The picture's file; None, with a word on why, where there is none to be shown."""
        from oscirc_blockstore.png_making import encode

        if not self._seen:
            return None
        (picture,) = self._seen
        if picture.is_blank() and not self.blank_too:
            warn(
                f"no screenshot: the display ({picture.width} x {picture.height}) showed nothing but one colour. The "
                "system talks on its serial line only: a Linux kernel started with console=tty0 shows its console, "
                "too; --blank-screenshot takes the picture as it is"
            )
            return None
        try:
            return encode(picture)
        except UsageError as error:
            warn(f"no screenshot: {error}")
            return None


@dataclass(frozen=True, slots=True)
class Sent:
    """What is beside the version now: the PNG file's length in bytes; `uploaded` unless it was there already."""

    name: str
    alt: str
    png_bytes: int
    uploaded: bool


def screenshot_options(function: Callable[P, R]) -> Callable[P, R]:
    """`--screenshot`, `--alt`, `--blank-screenshot`."""
    for option in reversed(
        [
            click.option(
                "--screenshot", is_flag=True, help="Send a picture of the display at the prompt, for the image's page."
            ),
            click.option("--alt", default="", help="Words for who does not see the picture (default: what it is of)."),
            click.option("--blank-screenshot", is_flag=True, help="Send the picture even if it shows nothing."),
        ]
    ):
        function = option(function)
    return function


def wish(*, wanted: bool, alt: str, blank_too: bool, file: Path | None = None, boots: bool = True) -> Wish:
    """What the options say, refused before anything is booted where it makes no sense; `boots`: something will be."""
    if wanted and not boots:
        raise UsageError("a screenshot is taken of a boot", hint="add --profile auto, or afterwards: oscirc record")
    if (alt and not wanted) or (blank_too and not (wanted or file)):
        raise UsageError("--alt and --blank-screenshot are about a screenshot", hint="add --screenshot")
    if alt:
        _check(alt)
    return Wish(wanted or file is not None, alt.strip(), blank_too)


def _check(alt: str) -> None:
    from oscirc_blockstore.fields import check_text
    from oscirc_blockstore.screenshot import MAX_ALT_CHARS, check_alt

    try:
        check_alt(check_text(alt.strip(), "--alt", MAX_ALT_CHARS))
    except DocumentRefusedError as error:
        raise UsageError(str(error)) from None


def send(client: RestClient, name: VersionName, manifest: Digest, alt: str, png: bytes) -> Sent | None:
    """Put the picture beside what was published; None, and a warning, where the server does not take it."""
    from oscirc_blockstore.screenshot import DEFAULT_NAME

    try:
        return put(client, name, manifest, DEFAULT_NAME, alt, png)
    except (UnreachableError, DeadlineExceededError):
        raise
    except OscircError as error:
        warn(f"no screenshot: {error}")
        return None


def put(client: RestClient, name: VersionName, manifest: Digest, called: str, alt: str, png: bytes) -> Sent:
    """Put a picture beside a released version."""
    from oscirc_publisher import screenshots

    return Sent(called, alt, len(png), screenshots.add(client, name, manifest, called, alt, png))


def picture_in(file: Path) -> bytes:
    """The PNG picture in a file, without what is in it beside the picture; an error that names the file."""
    from oscirc_blockstore import png

    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise UsageError(f"{file} is longer than {MAX_FILE_BYTES} bytes")
        bare = png.bare(raw)
        png.check(bare)
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except DocumentRefusedError as error:
        raise UsageError(f"{file}: {error}") from None
    return bare


def add_to_published(
    client: RestClient, wanted: VersionReference, manifest: Digest, look: Wish, until: str
) -> Sent | None:
    """The same for a version that was published just now; nothing where none was asked for."""
    from oscirc_publisher.accelerating import VersionName

    if not look.wanted:
        return None
    if not look.has_seen():
        warn("no screenshot: nothing was booted or seen now; later: oscirc record REF --screenshot")
        return None
    name = VersionName(wanted.publisher, wanted.image, wanted.version)
    png = look.png()
    return None if png is None else send(client, name, manifest, look.words(name, until), png)


def line_of(sent: Sent) -> str:
    """The same for people."""
    return f"{sent.name}: {human_bytes(sent.png_bytes)}, “{sent.alt}”{'' if sent.uploaded else ' (was there already)'}"


def tell(sent: Sent) -> None:
    """What was sent, for people."""
    say(f"screenshot {line_of(sent)}")
