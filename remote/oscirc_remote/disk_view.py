"""Bytes of a version's disk by offset, for whoever looks into it without mounting it: cache first, then the network.

What is looked at is bounded, whatever a file system says of itself: `DocumentRefusedError` beyond `max_bytes`. Reads
go by small windows of which a few are kept, since file systems are read 128 bytes here and 4 KiB there; whole blocks
are fetched, many at once where it is known what comes next (`prepare`), and what that will cost is known before it is
done (`digests`). Not safe for threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_remote.foresight import Blocks

WINDOW_BYTES = 64 << 10  # the least block size: a window lies in one block
MAX_LOOKED_AT_BYTES = 1 << 30
_KEPT_WINDOWS = 512
_AT_ONCE = 64


class KnownBlocks(Blocks, Protocol):
    """The blocks of a disk, of which it is known what stands where."""

    def digest_at(self, position: int) -> Digest | None:
        """The digest of a block with data, None for zeros; raises what the network does."""


class DiskView:
    """Reads one version. `looked_at` are the positions that were read or prepared."""

    def __init__(self, blocks: KnownBlocks, *, max_bytes: int = MAX_LOOKED_AT_BYTES) -> None:
        self._blocks = blocks
        self._max_positions = max_bytes // blocks.block_size
        self._windows: OrderedDict[int, bytes] = OrderedDict()
        self.disk_size = blocks.disk_size
        self.looked_at: set[int] = set()

    def read(self, offset: int, size: int) -> bytes:
        """Bytes; fewer only at the end of the disk."""
        stop = min(offset + size, self.disk_size)
        if offset < 0 or offset >= stop:
            return b""
        first = offset // WINDOW_BYTES * WINDOW_BYTES
        pieces = [self._window(start) for start in range(first, stop, WINDOW_BYTES)]
        raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return raw[offset - first : stop - first]

    def prepare(self, ranges: Iterable[ByteRange]) -> None:
        """These will be read next: have what is not here fetched, many blocks at once, and wait."""
        positions = self._positions(ranges) - self.looked_at
        self._note(positions)
        for at in range(0, len(ordered := sorted(positions)), _AT_ONCE):
            self._blocks.fetch_all(ordered[at : at + _AT_ONCE])

    def digests(self, ranges: Iterable[ByteRange]) -> set[Digest]:
        """The blocks with data in which these bytes stand."""
        found = (self._blocks.digest_at(position) for position in self._positions(ranges))
        return {digest for digest in found if digest is not None}

    def _window(self, start: int) -> bytes:
        kept = self._windows.get(start)
        if kept is not None:
            self._windows.move_to_end(start)
        else:
            position, at = divmod(start, self._blocks.block_size)
            self._note({position})
            kept = self._blocks.block(position)[at : at + WINDOW_BYTES]
            self._windows[start] = kept
            if len(self._windows) > _KEPT_WINDOWS:
                self._windows.popitem(last=False)
        return kept

    def _positions(self, ranges: Iterable[ByteRange]) -> set[int]:
        found: set[int] = set()
        size = self._blocks.block_size
        for piece in ranges:
            stop = min(piece.stop, self.disk_size)
            if piece.start < stop:
                found.update(range(piece.start // size, (stop - 1) // size + 1))
                self._check(len(found))
        return found

    def _note(self, positions: set[int]) -> None:
        self.looked_at |= positions
        self._check(len(self.looked_at))

    def _check(self, count: int) -> None:
        if count > self._max_positions:
            raise DocumentRefusedError("looking into this disk takes too much of it")
