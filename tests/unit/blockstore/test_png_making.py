"""Pictures of screens: small, the same for the same pixels, and read back by another program as they were."""

import random
import zlib

import pytest

from oscirc_blockstore import png
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.png import PictureSize
from oscirc_blockstore.png_making import CURSOR_PIXELS, Picture, encode

BLACK, GREY = bytes(3), bytes((170, 170, 170))


def screen(width, height, pixel):
    return Picture(width, height, b"".join(bytes(pixel(x, y)) for y in range(height) for x in range(width)))


def pixels_of(raw, width):
    """The RGB bytes of a file that `encode` made, put together again by hand."""
    at, chunks = 8, []
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]))
        at += length + 12
    found = dict(chunks)
    data = zlib.decompress(found[b"IDAT"])
    if b"PLTE" in found:
        rows = [data[at + 1 : at + 1 + width] for at in range(0, len(data), width + 1)]
        return b"".join(found[b"PLTE"][3 * place : 3 * place + 3] for row in rows for place in row)
    stride, above, whole = 1 + 3 * width, bytes(3 * width), b""
    for start in range(0, len(data), stride):
        number, row = data[start], bytearray(data[start + 1 : start + stride])
        for place in range(len(row)):
            base = (0, row[place - 3] if place >= 3 else 0, above[place])[number]
            row[place] = (row[place] + base) & 0xFF
        above = bytes(row)
        whole += above
    return whole


noise = random.Random(7)
PICTURES = [
    screen(9, 5, lambda x, y: GREY if (x ^ y) & 1 else BLACK),
    screen(40, 30, lambda x, y: (x * 6, y * 8, (x * y) & 0xFF)),
    screen(40, 30, lambda x, y: (255 - x, (y * 37) & 0xFF, 200)),
    screen(40, 30, lambda x, _: ((x * 97) & 0xFF, (x * 13) & 0xFF, x)),
    screen(40, 30, lambda _x, _y: noise.randbytes(3)),
    screen(1, 1, lambda _x, _y: GREY),
]


@pytest.mark.parametrize("picture", PICTURES, ids=range(len(PICTURES)))
def test_a_picture_comes_back_pixel_for_pixel_and_passes_the_checker(picture):
    raw = encode(picture)
    assert raw == encode(picture)
    assert png.check(raw) == PictureSize(picture.width, picture.height)
    assert pixels_of(raw, picture.width) == picture.rgb


def test_a_console_becomes_small():
    text = screen(720, 400, lambda x, y: GREY if y < 100 and (x * y) % 5 == 0 else BLACK)
    assert len(encode(text)) < 20_000


def test_what_a_cursor_covers_is_no_picture():
    def marked(count):
        return screen(64, 8, lambda x, y: GREY if 64 * y + x < count else BLACK)

    assert marked(0).is_blank()
    assert marked(CURSOR_PIXELS).is_blank()
    assert not marked(CURSOR_PIXELS + 1).is_blank()


def test_a_screen_that_is_too_large_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="too large"):
        encode(Picture(3841, 1, bytes(3 * 3841)))
    monkeypatch.setattr(png, "MAX_BYTES", 4096)
    with pytest.raises(UsageError, match="would have"):
        encode(Picture(64, 64, random.Random(1).randbytes(3 * 64 * 64)))
