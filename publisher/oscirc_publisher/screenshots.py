"""Puts pictures of a released version beside it: each made into one file with its words, uploaded, listed by a server.

What the server lists is shown on a terminal, so words that one could not show as they are are refused here, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore import png, screenshot
from oscirc_blockstore.accelerators import MAX_ACCELERATORS, SCREENSHOT
from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.fields import Fields
from oscirc_blockstore.names import check_channel
from oscirc_publisher.accelerating import VersionName, listed_accelerators
from oscirc_publisher.rest import Body, RestClient

_MAX_PATH_CHARS = 200


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture as the server lists it: its size in pixels, its words, its path below the repository's URL."""

    name: str
    width: int
    height: int
    alt: str
    path: str


def add(client: RestClient, name: VersionName, manifest: Digest, called: str, alt: str, picture: bytes) -> bool:
    """Whether it was sent: the very same may be there already. What stood there under that name is replaced."""
    raw = screenshot.build(manifest, alt, picture)
    digest = digest_of(raw)
    there = {(each.kind, each.name, each.sha256) for each in listed_accelerators(client, name)}
    if (SCREENSHOT, called, digest) in there:
        return False
    client.call("PUT", f"{_path(name, called)}?sha256={digest.hex()}", Body.of(raw))
    return True


def listed(client: RestClient, name: VersionName) -> list[Listed]:
    """What the server lists of a released version; `DocumentRefusedError` for what is out of bounds."""
    answer = Fields(client.call_json("GET", f"{name.path}/accelerators"), "the server's list")
    found = []
    for each in answer.sequence("accelerators", MAX_ACCELERATORS):
        fields = Fields(each, "an accelerator")
        if fields.text("kind", 63) == SCREENSHOT:
            called = check_channel(fields.text("name", 63))
            found.append(_listed(called, Fields(fields.take("picture"), "the picture of a screenshot")))
    return found


def remove(client: RestClient, name: VersionName, called: str) -> None:
    """Have it listed no more; `NotFoundError` where it is not."""
    client.call("DELETE", _path(name, called))


def _listed(called: str, fields: Fields) -> Listed:
    width, height = (fields.integer(side, 1, png.MAX_SIDE) for side in ("width", "height"))
    alt = fields.text("alt", screenshot.MAX_ALT_CHARS)
    return Listed(called, width, height, alt, fields.text("path", _MAX_PATH_CHARS))


def _path(name: VersionName, called: str) -> str:
    return f"{name.path}/accelerators/{SCREENSHOT}/{called}"
