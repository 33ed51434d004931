"""What a publisher reads: the seam between disks (a raw file, an instance's overlay) and the building of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` (included) to `stop` (excluded)."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a range: {self.start}..{self.stop}")

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


class DiskSource(Protocol):
    """A disk of `size` bytes. Safe to read from several threads; whatever is outside `extents` reads as zeros."""

    @property
    def size(self) -> int:
        """Virtual size in bytes."""

    def extents(self) -> Iterator[ByteRange]:
        """Ascending, non-overlapping ranges that may hold data; holes are left out."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes (fewer only at the end of the disk); raises `LocalError` on a read error."""

    def close(self) -> None:
        """Release what the source holds."""


def aligned(extents: Iterator[ByteRange], unit: int, size: int) -> Iterator[ByteRange]:
    """The extents widened to multiples of `unit` (the last cut at `size`), merged where they then touch."""
    start = stop = -1
    for extent in extents:
        if extent.size == 0:
            continue
        low = extent.start // unit * unit
        high = min(-(-extent.stop // unit) * unit, size)
        if stop >= 0 and low <= stop:
            stop = max(stop, high)
            continue
        if stop >= 0:
            yield ByteRange(start, stop)
        start, stop = low, high
    if stop >= 0:
        yield ByteRange(start, stop)
