"""Decodes one segment of a bundle while it arrives: each entry is verified and usable before the segment's end.

Output is pulled: the decoder is asked for exactly the next entry's bytes, so that whatever the frame pretends, no more
than an entry and the window (8 MiB) is held. The header is judged before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard

from oscirc_blockstore.bundle import SEGMENT_BYTES, Entry, Segment
from oscirc_blockstore.digests import verify
from oscirc_blockstore.errors import FrameRefusedError
from oscirc_blockstore.frame import MAGIC

_INPUT_BYTES = 128 << 10
_HEAD_BYTES = 18  # the longest header of a zstd frame (RFC 8878, 3.1.1.1)


class ByteSource(Protocol):
    """Where a segment's bytes come from."""

    def read(self, size: int) -> bytes:
        """The next bytes, at least one and at most `size`; empty only at the end. May wait, may raise."""


class SegmentSource:
    """The bytes of one segment out of a source that goes on behind it; counts what was taken."""

    def __init__(self, source: ByteSource, length: int) -> None:
        self._source = source
        self._held = b""
        self.left = length

    def read(self, size: int) -> bytes:
        """The next bytes of the segment; empty at its end."""
        if self._held:
            raw, self._held = self._held[:size], self._held[size:]
            return raw
        raw = self._source.read(min(size, self.left)) if self.left else b""
        self.left -= len(raw)
        return raw

    def peek(self, size: int) -> bytes:
        """The first bytes, which are read again; fewer only when there are no more."""
        while len(self._held) < size and self.left:
            raw = self._source.read(min(size - len(self._held), self.left))
            if not raw:
                break
            self.left -= len(raw)
            self._held += raw
        return self._held


def decode(segment: Segment, source: SegmentSource) -> Iterator[tuple[Entry, bytes]]:
    """Each entry with its verified bytes, in order, as soon as they are there.

    Raises `FrameRefusedError` or `DigestMismatchError` at the first byte that cannot be right (what was given out
    before stands), and whatever the source raises.
    """
    _judge_head(segment, source.peek(_HEAD_BYTES))
    decompressor = zstandard.ZstdDecompressor(max_window_size=SEGMENT_BYTES)
    with decompressor.stream_reader(cast("IO[bytes]", source), read_size=_INPUT_BYTES) as decoded:
        for entry in segment.entries:
            raw = _read(decoded, entry.raw_size)
            if len(raw) != entry.raw_size:
                raise FrameRefusedError("a bundle's segment holds less than its index says")
            verify(raw, entry.digest)
            yield entry, raw
        if _read(decoded, 1) or source.left or source.read(1):
            raise FrameRefusedError("a bundle's segment holds more than its index says")


def _read(decoded: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    try:
        return decoded.read(size)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"a bundle's segment does not decode: {error}") from None


def _judge_head(segment: Segment, head: bytes) -> None:
    """Refuse a bomb unopened."""
    try:
        header = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError as error:
        raise FrameRefusedError(f"a bundle's segment has a damaged header: {error}") from None
    if head[:4] != MAGIC or header.content_size != segment.raw_length or header.dict_id:
        raise FrameRefusedError("a bundle's segment is not the frame that its index describes")
