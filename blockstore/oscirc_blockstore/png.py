"""A checker of PNG files (ISO/IEC 15948) as narrow as screenshots need, so that what it lets pass surprises no decoder.

It shows nothing and decodes nothing for anybody: it says whether every byte of a file is what it must be.

- Chunks: IHDR, PLTE (of a palette picture, and of no other), IDAT, IEND, in this order, nothing in front, between or
  behind. Ancillary chunks are refused: text, profiles, animations and times have no place in a screenshot.
- 8 bits a sample, not interlaced; grey, RGB, palette, each of the first two also with alpha. Every CRC holds.
- At most 2 MiB, 3840 pixels a side, and 3840 x 2160 in all: decided from IHDR, before anything is decompressed.
- The pixels are decompressed in pieces of bounded size, are exactly as long as IHDR says, name only filters that there
  are, and end where the data ends: no bomb, nothing hidden behind them. A palette picture has no filters and names only
  colours of its palette.

What remains: data that compresses into a script is a picture all the same. Whoever serves one says `image/png`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from oscirc_blockstore.errors import DocumentRefusedError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BYTES = 2 << 20
MAX_SIDE = 3840
MAX_PIXELS = 3840 * 2160
PALETTE = 3
_CHANNELS = {0: 1, 2: 3, PALETTE: 1, 4: 2, 6: 4}
_BIT_DEPTH = 8
_HEADER = struct.Struct(">IIBBBBB")
_CHUNK_AROUND = 12  # length, type, CRC
_MAX_COLOURS = 256
_LAST_FILTER = 4
_PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class PictureSize:
    """In pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Header:
    size: PictureSize
    colour_type: int

    @property
    def stride(self) -> int:
        """Bytes of a row: its filter's number, then its samples."""
        return 1 + self.size.width * _CHANNELS[self.colour_type]


def check(raw: bytes) -> PictureSize:
    """The size of the picture in `raw`, or `DocumentRefusedError` for what is not wholly as told above."""
    if len(raw) > MAX_BYTES:
        raise DocumentRefusedError(f"a picture of {len(raw)} bytes: at most {MAX_BYTES} are allowed")
    if not raw.startswith(SIGNATURE):
        raise DocumentRefusedError("the picture is no PNG file")
    chunks = list(_chunks(raw))
    kinds = [kind for kind, _ in chunks]
    if kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or chunks[-1][1]:
        raise DocumentRefusedError("the picture does not go from IHDR to an empty IEND")
    header = _header(chunks[0][1])
    with_palette = header.colour_type == PALETTE
    expected = 2 if with_palette else 1
    data = chunks[expected:-1]
    if with_palette and kinds[1] != b"PLTE":
        raise DocumentRefusedError("the picture lacks its palette")
    for kind, _ in data:
        if kind != b"IDAT":
            raise DocumentRefusedError(f"the picture has a chunk {kind.decode('ascii')} where only IDAT may stand")
    colours = _colours(chunks[1][1]) if with_palette else None
    _check_rows(_inflated(content for _, content in data), header, colours)
    return header.size


def bare(raw: bytes) -> bytes:
    """The file without its ancillary chunks, which begin with a small letter; what is left is still to be checked."""
    if not raw.startswith(SIGNATURE):
        raise DocumentRefusedError("the picture is no PNG file")
    kept, at = [SIGNATURE], len(SIGNATURE)
    for kind, content in _chunks(raw):
        end = at + len(content) + _CHUNK_AROUND
        if kind[:1].isupper():
            kept.append(raw[at:end])
        at = end
    return b"".join(kept)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of every chunk up to IEND, which ends the file."""
    view, at, kind = memoryview(raw), len(SIGNATURE), b""
    while kind != b"IEND":
        if len(raw) - at < _CHUNK_AROUND:
            raise DocumentRefusedError("the picture ends before its end")
        length = int.from_bytes(view[at : at + 4], "big")
        if length > len(raw) - at - _CHUNK_AROUND:
            raise DocumentRefusedError("the picture has a chunk that is longer than the file")
        kind, content = bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        if not kind.isalpha():
            raise DocumentRefusedError("the picture has a chunk without a name")
        at += length + _CHUNK_AROUND
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(view[at - 4 : at], "big"):
            raise DocumentRefusedError(f"the CRC of the picture's chunk {kind.decode('ascii')} is wrong")
        yield kind, content
    if at != len(raw):
        raise DocumentRefusedError(f"{len(raw) - at} bytes stand behind the end of the picture")


def _header(content: memoryview) -> _Header:
    if len(content) != _HEADER.size:
        raise DocumentRefusedError("the picture's IHDR has another length")
    width, height, depth, colour_type, *methods = _HEADER.unpack(content)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise DocumentRefusedError(f"a picture of {width} x {height} pixels: at most 3840 x 2160 are allowed")
    if depth != _BIT_DEPTH or colour_type not in _CHANNELS or methods != [0, 0, 0]:
        raise DocumentRefusedError(
            "the picture's pixels are not of 8 bits a sample, or are interlaced, or of an unknown form"
        )
    return _Header(PictureSize(width, height), colour_type)


def _colours(palette: memoryview) -> int:
    count, rest = divmod(len(palette), 3)
    if rest or not 1 <= count <= _MAX_COLOURS:
        raise DocumentRefusedError("the picture's palette has another length")
    return count


def _inflated(pieces: Iterable[memoryview]) -> Iterator[bytes]:
    """What the compressed pieces hold, at most `_PIECE_BYTES` at once; refuses what is no whole zlib stream."""
    stream = zlib.decompressobj()
    try:
        for piece in pieces:
            left: bytes | memoryview = piece
            while left and not stream.eof:
                yield stream.decompress(left, _PIECE_BYTES)
                left = stream.unconsumed_tail
            if stream.unused_data or (left and stream.eof):
                raise DocumentRefusedError("bytes stand behind the picture's pixels")
        while not stream.eof:
            more = stream.decompress(b"", _PIECE_BYTES)  # a full piece may have left some in the stream itself
            if not more:
                break
            yield more
    except zlib.error as error:
        raise DocumentRefusedError(f"the picture's pixels cannot be decompressed: {error}") from None
    if not stream.eof:
        raise DocumentRefusedError("the picture's pixels end before their end")


def _check_rows(pieces: Iterable[bytes], header: _Header, colours: int | None) -> None:
    expected, stride, at = header.stride * header.size.height, header.stride, 0
    filters = bytes(range(1 if colours is not None else _LAST_FILTER + 1))
    indexes = None if colours is None else bytes(range(colours))
    for piece in pieces:
        if at + len(piece) > expected:
            raise DocumentRefusedError("the picture has more pixels than its IHDR says")
        if piece[-at % stride :: stride].translate(None, filters):
            raise DocumentRefusedError("the picture names a filter that there is not, or is a palette picture with one")
        if indexes is not None and piece.translate(None, indexes):
            raise DocumentRefusedError("the picture names a colour that its palette lacks")
        at += len(piece)
    if at != expected:
        raise DocumentRefusedError("the picture has fewer pixels than its IHDR says")
