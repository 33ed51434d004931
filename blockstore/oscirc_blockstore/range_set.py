"""Ranges of bytes that are asked about often: which of them, or which parts of them, are in a given place."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

from oscirc_blockstore.disk_source import ByteRange


class RangeSet:
    """Ascending, non-overlapping ranges."""

    def __init__(self, ranges: Iterable[ByteRange]) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for one in ranges:
            self._starts.append(one.start)
            self._stops.append(one.stop)

    @property
    def total_bytes(self) -> int:
        """The size of all of them."""
        return sum(self._stops) - sum(self._starts)

    def within(self, place: ByteRange) -> Iterator[ByteRange]:
        """Their parts that are in `place`, ascending."""
        at = bisect.bisect_right(self._stops, place.start)
        while at < len(self._starts) and self._starts[at] < place.stop:
            low, high = max(self._starts[at], place.start), min(self._stops[at], place.stop)
            if low < high:
                yield ByteRange(low, high)
            at += 1

    def touches(self, place: ByteRange) -> bool:
        """Whether any part of them is in `place`."""
        return next(self.within(place), None) is not None
