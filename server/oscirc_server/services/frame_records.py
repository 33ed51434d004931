"""The body of an upload (`application/vnd.oscirc.frames`), taken apart as it arrives; no I/O, no decoding.

A record is a digest (32 bytes), the raw size and the frame's length (each u32, little endian), and the frame. A
record's header is judged before a byte of its frame is kept, so that the parser never holds more than one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from oscirc_blockstore.digests import ZERO_DIGEST, Digest, digest_of_zeros
from oscirc_blockstore.errors import FrameRefusedError
from oscirc_blockstore.frame import max_frame_bytes, stated_size
from oscirc_blockstore.table import NODE_SIZE
from oscirc_server.errors import BodyTooLargeError, RecordRefusedError, RequestRefusedError

MEDIA_TYPE = "application/vnd.oscirc.frames"
MAX_BODY_BYTES = 16 << 20
MAX_RECORDS = 4096

FRAME_MEDIA_TYPE = "application/zstd"

_HEADER = struct.Struct("<32sII")


@dataclass(frozen=True, slots=True)
class Record:
    """One frame that claims to hold the block or node `digest`; `index` counts from 0 in its body."""

    index: int
    digest: Digest
    raw_size: int
    frame: bytes


def record_of(digest: Digest, frame: bytes) -> bytes:
    """A frame that came alone, as a body of one record; raises `RecordRefusedError` where it is clearly none."""
    try:
        return _HEADER.pack(digest, stated_size(frame), len(frame)) + frame
    except FrameRefusedError as error:
        raise RecordRefusedError(str(error), record=0, digest=digest.hex()) from None


class RecordParser:
    """Bytes in, records out, for one body of a draft with this block size."""

    def __init__(self, block_size: int) -> None:
        self._raw_sizes = (block_size, NODE_SIZE)
        self._buffer = bytearray()
        self._header: tuple[Digest, int, int] | None = None
        self._count = 0

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that `data` completes; raises `RecordRefusedError` at the first bad header."""
        self._buffer += data
        while True:
            if self._header is None:
                if len(self._buffer) < _HEADER.size:
                    return
                self._header = self._read_header()
            digest, raw_size, length = self._header
            if len(self._buffer) < length:
                return
            frame = bytes(memoryview(self._buffer)[:length])
            del self._buffer[:length]
            self._header = None
            yield Record(self._count, digest, raw_size, frame)
            self._count += 1

    def _read_header(self) -> tuple[Digest, int, int]:
        if self._count == MAX_RECORDS:
            raise BodyTooLargeError(f"a body holds at most {MAX_RECORDS} records")
        raw_digest, raw_size, length = _HEADER.unpack_from(self._buffer)
        del self._buffer[: _HEADER.size]
        digest = Digest(raw_digest)
        if raw_size not in self._raw_sizes:
            raise self._refused(digest, f"states {raw_size} bytes; {self._raw_sizes[0]} or {NODE_SIZE} are allowed")
        if digest in (ZERO_DIGEST, digest_of_zeros(raw_size)):
            raise self._refused(digest, "holds zeros, which are never stored")
        if not 0 < length <= max_frame_bytes(raw_size):
            raise self._refused(digest, f"has a frame of {length} bytes for {raw_size} bytes of content")
        return digest, raw_size, length

    def _refused(self, digest: Digest, why: str) -> RecordRefusedError:
        return RecordRefusedError(f"record {self._count} {why}", record=self._count, digest=digest.hex())

    def finish(self) -> None:
        """Raise `RequestRefusedError` when the body ended inside a record."""
        if self._header is not None or self._buffer:
            raise RequestRefusedError(f"the body ends inside record {self._count}")
