"""Which bytes of a disk an overlay holds, and where in its file: a qcow2's map, read without QEMU.

Layout: QEMU's docs/interop/qcow2.txt. A two-level table leads from an address to a cluster; with extended entries a
bitmap says of each 32nd of a cluster whether it is here, reads as zeros, or is as in the disk below. Only the part of
the table that an overlay has is read: what was never written costs eight bytes a gibibyte.

Rules:

1. The file is somebody's: every number is bounded before it is used. What cannot be right, or is not made by an
   overlay of ours (compressed clusters), raises `DocumentRefusedError`. The header was judged by `overlays.check`.
2. Runs come out ascending, never overlap, and never reach beyond the disk. A run is of one kind: data that stands in
   the file in one piece, or zeros.
3. A cluster that is said to stand behind the end of the file is refused, where QEMU would read zeros. The last one
   may be cut off: a file ends where the last write ended.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oscirc_blockstore.errors import DocumentRefusedError

Read = Callable[[int, int], bytes]
"""Bytes of the file: offset and size; fewer only at its end."""

_HEADER = struct.Struct(">4sIQIIQIIQ")
_FEATURES_AT = 72
_EXTENDED_L2 = 1 << 4
_CLUSTER_BITS, _MAX_L1_BYTES = range(9, 22), 32 << 20
_EXTENDED_CLUSTER_BITS = range(14, 22)
_OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED, _ZERO = 1 << 62, 1
_SUBCLUSTERS = 32
_LOW = (1 << _SUBCLUSTERS) - 1
_REMEMBERED_TABLES = 32
ZEROS = -1


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes `start` to `stop` of the disk, which stand in the file from `place` on; at `ZEROS`: nowhere, all zeros."""

    start: int
    stop: int
    place: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.stop - self.start


class OverlayMap:
    """The map of one overlay; safe for threads. `file_size` in bytes."""

    def __init__(self, read: Read, file_size: int) -> None:
        self._read = read
        self._file_size = file_size
        header = read(0, _FEATURES_AT + 8)
        if len(header) < _FEATURES_AT + 8:
            raise _damaged("its header is cut off")
        fields: tuple[int, ...] = _HEADER.unpack_from(header)[4:]
        cluster_bits, self.disk_size, _, l1_entries, l1_offset = fields
        extended = bool(struct.unpack_from(">Q", header, _FEATURES_AT)[0] & _EXTENDED_L2)
        if cluster_bits not in (_EXTENDED_CLUSTER_BITS if extended else _CLUSTER_BITS):
            raise _damaged("clusters of an impossible size")
        self.cluster_size = 1 << cluster_bits
        self._extended = extended
        self._table_entries = self.cluster_size // (16 if extended else 8)
        self._table_span = self.cluster_size * self._table_entries
        needed = -(-self.disk_size // self._table_span)
        if l1_entries < needed or l1_entries * 8 > _MAX_L1_BYTES or l1_offset % self.cluster_size or not l1_offset:
            raise _damaged("a table of an impossible size or place")
        raw = read(l1_offset, needed * 8)
        if len(raw) != needed * 8:
            raise _damaged("its table is cut off")
        self._l1 = struct.unpack(f">{needed}Q", raw)
        self._table = functools.lru_cache(_REMEMBERED_TABLES)(self._load_table)

    def runs(self, start: int = 0, stop: int | None = None) -> Iterator[Run]:
        """What the overlay holds between these bytes of the disk; what is left out is as in the disk below."""
        stop = self.disk_size if stop is None else min(stop, self.disk_size)
        held: Run | None = None
        for piece in self._pieces(start, stop):
            if held is not None and held.stop == piece.start and piece.place == _continued(held):
                held = Run(held.start, piece.stop, held.place)
                continue
            if held is not None:
                yield held
            held = piece
        if held is not None:
            yield held

    def _pieces(self, start: int, stop: int) -> Iterator[Run]:
        at = start
        while at < stop:
            number, within = divmod(at, self._table_span)
            table_stop = min(stop, (number + 1) * self._table_span)
            if self._l1[number] & _OFFSET_MASK:
                entries = self._table(number)
                first, last = within // self.cluster_size, (table_stop - 1) % self._table_span // self.cluster_size
                for index in range(first, last + 1):
                    descriptor, bitmap = entries[index]
                    if descriptor or bitmap:
                        place = number * self._table_span + index * self.cluster_size
                        yield from _clipped(self._cluster(place, descriptor, bitmap), at, table_stop)
            at = table_stop

    def _cluster(self, start: int, descriptor: int, bitmap: int) -> Iterator[Run]:
        """What a cluster's entry says: one run, or one for each stretch of equal subclusters."""
        if descriptor & _COMPRESSED:
            raise DocumentRefusedError(
                "the overlay holds compressed clusters, which no guest writes",
                hint="qemu-img convert makes a disk of it that can be published: qemu-img convert -O raw OVERLAY DISK",
            )
        host = descriptor & _OFFSET_MASK
        if host % self.cluster_size or host >= self._file_size:
            raise _damaged("a cluster outside of the file")
        if not self._extended:
            if descriptor & _ZERO:
                yield Run(start, start + self.cluster_size, ZEROS)
            elif host:
                yield Run(start, start + self.cluster_size, host)
            return
        here, zero = bitmap & _LOW, bitmap >> _SUBCLUSTERS
        if here & zero or (here and not host) or descriptor & _ZERO:
            raise _damaged("a cluster that contradicts itself")
        if _LOW in (here, zero):
            yield Run(start, start + self.cluster_size, host if here else ZEROS)
        else:
            yield from _subclusters(start, self.cluster_size // _SUBCLUSTERS, host, here, zero)

    def _load_table(self, number: int) -> list[tuple[int, int]]:
        """(descriptor, bitmap) of each cluster in one second-level table."""
        place = self._l1[number] & _OFFSET_MASK
        raw = self._read(place, self.cluster_size) if not place % self.cluster_size else b""
        if len(raw) != self.cluster_size:
            raise _damaged("a table outside of the file")
        if self._extended:
            return list(struct.iter_unpack(">QQ", raw))
        return [(descriptor, 0) for (descriptor,) in struct.iter_unpack(">Q", raw)]


def _subclusters(start: int, size: int, host: int, here: int, zero: int) -> Iterator[Run]:
    """A run for each subcluster that is not as in the disk below."""
    for number in range(_SUBCLUSTERS):
        if here >> number & 1:
            yield Run(start + number * size, start + (number + 1) * size, host + number * size)
        elif zero >> number & 1:
            yield Run(start + number * size, start + (number + 1) * size, ZEROS)


def _continued(run: Run) -> int:
    return ZEROS if run.place == ZEROS else run.place + run.size


def _clipped(runs: Iterator[Run], start: int, stop: int) -> Iterator[Run]:
    for run in runs:
        low, high = max(run.start, start), min(run.stop, stop)
        if low < high:
            yield Run(low, high, run.place if run.place == ZEROS else run.place + low - run.start)


def _damaged(what: str) -> DocumentRefusedError:
    return DocumentRefusedError(f"the overlay is damaged: {what}", hint="qemu-img check says more")
