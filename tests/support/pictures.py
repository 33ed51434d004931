"""PNG files as they should be, and as nobody should make them."""

import struct
import zlib

from oscirc_blockstore.png import SIGNATURE

WIDTH, HEIGHT = 6, 4
PALETTE = bytes((0, 0, 0, 255, 255, 255))
ROWS = b"".join(b"\0" + bytes((row + column) % 2 for column in range(WIDTH)) for row in range(HEIGHT))


def chunk(kind, content=b"", crc=None):
    checked = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checked)


def header(width=WIDTH, height=HEIGHT, depth=8, colour=3, compression=0, filtering=0, interlaced=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, filtering, interlaced))


def picture(*, head=None, palette=PALETTE, rows=ROWS, data=None, between=b"", end=None, behind=b""):
    """A small picture of two colours, with anything of it replaced; `palette` None leaves it out."""
    packed = chunk(b"IDAT", zlib.compress(rows)) if data is None else data
    colours = b"" if palette is None else chunk(b"PLTE", palette)
    return SIGNATURE + (head or header()) + colours + between + packed + (end or chunk(b"IEND")) + behind
