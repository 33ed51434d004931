"""A screenshot of a version: what its guest's display showed, with words for who does not see it.

An accelerator of kind `screenshot`: one line of canonical JSON that names the manifest, the picture's size in pixels
and its alternative text, a line feed, and the picture as a PNG file. It makes nothing sooner but a choice, and is
unsigned: a lie makes a page show another picture, nothing else. The PNG is judged in whole (`png.check`) by whoever
keeps it; the text is one that a page can show as it is. As one file it is bound to its disk, and is copied, mirrored
and imported as every other accelerator; as it begins with `{`, no browser takes that file for a picture or a page.
"""

from __future__ import annotations

from dataclasses import dataclass

from oscirc_blockstore import canonical, png
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.fields import Fields
from oscirc_blockstore.png import PictureSize

FORMAT = "oscirc-screenshot-1"
DEFAULT_NAME = "console"
MAX_ALT_CHARS = 300
MAX_HEAD_BYTES = 4096
MAX_BYTES = MAX_HEAD_BYTES + 1 + png.MAX_BYTES
_WHAT = "the screenshot"


@dataclass(frozen=True, slots=True)
class Screenshot:
    """A picture of the disk with this manifest; `alt` says what it shows."""

    manifest: Digest
    alt: str
    size: PictureSize
    png: bytes


def build(manifest: Digest, alt: str, picture: bytes) -> bytes:
    """The file of a PNG picture; `DocumentRefusedError` for a text or a picture that `parse` would refuse."""
    size = png.check(picture)
    head = canonical.serialise(
        {
            "format": FORMAT,
            "manifest": manifest.hex(),
            "alt": alt.strip(),
            "width": size.width,
            "height": size.height,
        }
    )
    raw = head + b"\n" + picture
    split(raw)
    return raw


def parse(raw: bytes) -> Screenshot:
    """The screenshot in `raw`, its picture judged, or `DocumentRefusedError`."""
    found = split(raw)
    if png.check(found.png) != found.size:
        raise DocumentRefusedError("the screenshot's picture has another size than it says")
    return found


def split(raw: bytes) -> Screenshot:
    """The same of a file that was judged when it was kept: its picture is not looked at again."""
    if len(raw) > MAX_BYTES:
        raise DocumentRefusedError(f"{_WHAT} has {len(raw)} bytes; at most {MAX_BYTES} are allowed")
    head, feed, picture = raw.partition(b"\n")
    if not feed:
        raise DocumentRefusedError(f"{_WHAT} has no picture")
    fields = Fields(canonical.parse(head, MAX_HEAD_BYTES, _WHAT), _WHAT)
    fields.constant("format", FORMAT)
    manifest = fields.digest("manifest")
    alt = check_alt(fields.text("alt", MAX_ALT_CHARS))
    size = PictureSize(fields.integer("width", 1, png.MAX_SIDE), fields.integer("height", 1, png.MAX_SIDE))
    fields.finish()
    return Screenshot(manifest, alt, size, picture)


def check_alt(text: str) -> str:
    """`text` unless there is nothing in it: a picture without words is nothing to who does not see it."""
    if not text.strip():
        raise DocumentRefusedError("the screenshot has no alternative text", hint="say what it shows")
    return text
