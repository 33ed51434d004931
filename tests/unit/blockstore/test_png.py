"""What the checker of pictures lets pass, and every way that we know of in which a file is more, or less, than one."""

import struct
import tracemalloc
import zlib

import pytest
from support.pictures import HEIGHT, PALETTE, ROWS, WIDTH, chunk, header, picture

from oscirc_blockstore import png
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_blockstore.png import PictureSize

PACKED = zlib.compress(ROWS)
SCRIPT = b"<script>alert(1)</script>"


def rows_of(samples, filtering=0):
    return (bytes([filtering]) + bytes(WIDTH * samples)) * HEIGHT


@pytest.mark.parametrize(
    "raw",
    [
        picture(),
        picture(data=chunk(b"IDAT", PACKED[:3]) + chunk(b"IDAT") + chunk(b"IDAT", PACKED[3:])),
        *(
            picture(head=header(colour=colour), palette=None, rows=rows_of(samples, filtering))
            for colour, samples in ((0, 1), (2, 3), (4, 2), (6, 4))
            for filtering in (0, 4)
        ),
    ],
    ids=range(10),
)
def test_a_picture_passes_with_its_size(raw):
    assert png.check(raw) == PictureSize(WIDTH, HEIGHT)


BAD = [
    (b"", "no PNG"),
    (b"GIF89a" + picture(), "no PNG"),
    (SCRIPT + picture(), "no PNG"),
    (picture(behind=SCRIPT), "behind the end"),
    (picture(behind=b"PK\x03\x04"), "behind the end"),
    (picture(behind=picture()), "behind the end"),
    (picture(between=chunk(b"tEXt", b"Comment\0" + SCRIPT)), "tEXt"),
    (picture(between=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SCRIPT))), "zTXt"),
    (picture(between=chunk(b"iTXt", b"a\0\0\0\0\0b")), "iTXt"),
    (picture(between=chunk(b"eXIf", b"MM")), "eXIf"),
    (picture(between=chunk(b"iCCP", b"a\0\0")), "iCCP"),
    (picture(between=chunk(b"acTL", bytes(8))), "acTL"),
    (picture(between=chunk(b"PLTE", PALETTE)), "PLTE"),
    (picture(between=header()), "IHDR"),
    (picture(between=chunk(b"<b>!", b"")), "without a name"),
    (picture(head=chunk(b"gAMA", bytes(4)) + header()), "IHDR to"),
    (picture(end=chunk(b"IEND", SCRIPT)), "empty IEND"),
    (picture(end=chunk(b"IEND", crc=0)), "CRC"),
    (picture(palette=None), "palette"),
    (picture(palette=b""), "palette"),
    (picture(palette=PALETTE + b"\0"), "palette"),
    (picture(palette=bytes(3 * 257)), "palette"),
    (picture(palette=PALETTE[:3]), "its palette lacks"),
    (picture(head=header(colour=2), rows=rows_of(3)), "PLTE"),
    (picture(head=header(width=0)), "0 x 4"),
    (picture(head=header(width=3841)), "3841 x 4"),
    (picture(head=header(height=1 << 31)), "pixels"),
    (picture(head=header(width=3000, height=3000)), "3000 x 3000"),
    (picture(head=header(depth=16)), "8 bits"),
    (picture(head=header(depth=1)), "8 bits"),
    (picture(head=header(colour=5)), "8 bits"),
    (picture(head=header(interlaced=1)), "interlaced"),
    (picture(head=header(compression=1)), "unknown form"),
    (picture(head=header(filtering=64)), "unknown form"),
    (picture(head=chunk(b"IHDR", bytes(12))), "IHDR"),
    (picture(data=b""), "end before"),
    (picture(data=chunk(b"IDAT", b"")), "end before"),
    (picture(data=chunk(b"IDAT", PACKED[:-4])), "end before"),
    (picture(data=chunk(b"IDAT", PACKED[:-1] + bytes([PACKED[-1] ^ 1]))), "decompressed"),
    (picture(data=chunk(b"IDAT", SCRIPT)), "decompressed"),
    (picture(data=chunk(b"IDAT", PACKED + SCRIPT)), "behind the picture's pixels"),
    (picture(data=chunk(b"IDAT", PACKED) + chunk(b"IDAT", SCRIPT)), "behind the picture's pixels"),
    (picture(data=chunk(b"IDAT", PACKED[:3]) + chunk(b"tIME") + chunk(b"IDAT", PACKED[3:])), "tIME"),
    (picture(data=chunk(b"IDAT", zlib.compress(ROWS, wbits=-15))), "decompressed"),
    (picture(rows=ROWS[:-1]), "fewer pixels"),
    (picture(rows=ROWS + b"\0"), "more pixels"),
    (picture(rows=b"\1" + ROWS[1:]), "filter"),
    (picture(rows=ROWS[:-1] + b"\2"), "its palette lacks"),
    (picture(head=header(colour=2), palette=None, rows=rows_of(3, 5)), "filter"),
    (picture()[:-1], "before its end"),
    (picture()[:-12], "before its end"),
    (picture()[:46], "longer than the file"),
    (bytes(png.MAX_BYTES + 1), "at most"),
]


@pytest.mark.parametrize(("raw", "why"), BAD, ids=[f"{number}-{why}" for number, (_, why) in enumerate(BAD)])
def test_what_is_no_plain_picture_is_refused(raw, why):
    with pytest.raises(DocumentRefusedError, match=why):
        png.check(raw)


@pytest.mark.parametrize("at", range(len(picture())))
def test_any_changed_byte_is_refused(at):
    raw = bytearray(picture())
    raw[at] ^= 0x10
    with pytest.raises(DocumentRefusedError):
        png.check(bytes(raw))


def test_what_is_beside_a_picture_can_be_left_out():
    extras = chunk(b"gAMA", bytes(4)), chunk(b"tEXt", b"Author\0me"), chunk(b"tIME", bytes(7))
    raw = picture(head=header() + extras[0], between=extras[1], end=extras[2] + chunk(b"IEND"))
    assert png.bare(raw) == png.bare(picture()) == picture()
    for bad in (b"", raw[:-1], raw + b"\0", raw.replace(b"me", b"ne"), SCRIPT):
        with pytest.raises(DocumentRefusedError):
            png.bare(bad)
    assert b"XXXX" in png.bare(picture(between=chunk(b"XXXX")))  # critical: not ours to drop


def test_a_bomb_is_left_when_it_has_one_byte_too_many():
    bomb = zlib.compress(bytes(100 << 20), 9)
    assert len(bomb) < png.MAX_BYTES
    largest = header(width=3840, height=2160, colour=6)
    tracemalloc.start()
    try:
        for head in (largest, header(colour=6)):
            with pytest.raises(DocumentRefusedError, match="more pixels"):
                png.check(picture(head=head, palette=None, data=chunk(b"IDAT", bomb)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20


def test_the_largest_picture_passes():
    rows = (b"\0" + bytes(3840)) * 2160
    raw = picture(head=header(width=3840, height=2160), rows=rows)
    assert png.check(raw) == PictureSize(3840, 2160)


def test_very_many_chunks_are_judged_too():
    empty = chunk(b"IDAT") * 100_000
    assert png.check(picture(data=empty + chunk(b"IDAT", PACKED) + empty[: 12 * 10_000]))


def test_the_signature_and_the_header_are_those_of_the_standard():
    assert picture()[:16] == bytes.fromhex("89504e470d0a1a0a0000000d49484452")
    assert struct.unpack(">II", picture()[16:24]) == (WIDTH, HEIGHT)
