"""Makes a PNG file of the pixels of a screen: the same pixels give the same bytes, and `png.check` lets it pass.

Up to 256 colours, as a text console has, become a palette picture; more become RGB, its rows as they are or as
differences from the pixel before or from the row above, whichever is shortest. Differences are taken of whole rows at
once, as numbers of many bytes that never carry from one byte into the next.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oscirc_blockstore import png
from oscirc_blockstore.errors import UsageError

CURSOR_PIXELS = 128  # one character of 8 x 16
_MAX_COLOURS = 256
_LEVEL = 9
_RGB = 2
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of a screen: `rgb` has three bytes for each, row by row from the top."""

    width: int
    height: int
    rgb: bytes

    def colours(self) -> Counter[Colour]:
        """How many pixels have which colour."""
        return Counter(self._pixels())

    def is_blank(self) -> bool:
        """Whether it shows nothing: all is of one colour, but for what a cursor may cover."""
        ((_, commonest),) = self.colours().most_common(1)
        return self.width * self.height - commonest <= CURSOR_PIXELS

    def _pixels(self) -> Iterator[Colour]:
        return zip(self.rgb[0::3], self.rgb[1::3], self.rgb[2::3], strict=True)

    def indexed(self, places: dict[Colour, int]) -> bytes:
        """One byte for each pixel: the place of its colour."""
        return bytes(map(places.__getitem__, self._pixels()))

    def rows(self) -> Iterator[bytes]:
        """From the top."""
        length = 3 * self.width
        return (self.rgb[at : at + length] for at in range(0, len(self.rgb), length))


def encode(picture: Picture) -> bytes:
    """The picture as a PNG file; `UsageError` for one that would be larger than `png.check` allows."""
    if picture.width * picture.height > png.MAX_PIXELS or max(picture.width, picture.height) > png.MAX_SIDE:
        raise UsageError(f"a screen of {picture.width} x {picture.height} is too large: 3840 x 2160 at most")
    colours = sorted(picture.colours())
    if len(colours) <= _MAX_COLOURS:
        indexes = picture.indexed({colour: place for place, colour in enumerate(colours)})
        rows = b"".join(b"\0" + indexes[at : at + picture.width] for at in range(0, len(indexes), picture.width))
        palette = _chunk(b"PLTE", b"".join(map(bytes, colours)))
        raw = _file(picture, png.PALETTE, palette, zlib.compress(rows, _LEVEL))
    else:
        shortest = min((zlib.compress(rows, _LEVEL) for rows in _filtered(picture)), key=len)
        raw = _file(picture, _RGB, b"", shortest)
    if len(raw) > png.MAX_BYTES:
        raise UsageError(f"the picture would have {len(raw)} bytes; at most {png.MAX_BYTES} are allowed")
    return raw


def _filtered(picture: Picture) -> Iterator[bytes]:
    """All rows with filter 0 (none), 1 (the pixel to the left), 2 (the row above)."""
    nothing = bytes(3 * picture.width)
    bases: tuple[Callable[[bytes, bytes], bytes], ...] = (
        lambda _row, _above: nothing,
        lambda row, _above: b"\0\0\0" + row[:-3],
        lambda _row, above: above,
    )
    for number, base in enumerate(bases):
        filtered, above = bytearray(), nothing
        for row in picture.rows():
            filtered.append(number)
            filtered += _difference(row, base(row, above))
            above = row
        yield bytes(filtered)


def _difference(row: bytes, base: bytes) -> bytes:
    """Each byte of `row` less that of `base`, modulo 256: the top bits are set apart, so that no byte borrows."""
    top = int.from_bytes(b"\x80" * len(row), "little")
    left, right = int.from_bytes(row, "little"), int.from_bytes(base, "little")
    return (((left | top) - (right & ~top)) ^ ((left ^ ~right) & top)).to_bytes(len(row), "little")


def _file(picture: Picture, colour_type: int, palette: bytes, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", picture.width, picture.height, 8, colour_type, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), palette, _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return png.SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
