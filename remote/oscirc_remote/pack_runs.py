"""Frames of a delta pack, those that follow one another in one request: for who wants all of an image.

Whoever asks for a record first asks for those around it too, as far as they are wanted and up to `RUN_BYTES`; who comes
for one of these meanwhile waits for that request instead of making another. Those before it count as well as those
behind: which of several threads comes first is chance, and each that came out of turn would cost a request. What came
and is not asked for is forgotten when `HELD_BYTES` are held. A request that fails fails for the one that made it; the
others then ask for themselves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oscirc_blockstore.delta import Record
from oscirc_blockstore.digests import Digest
from oscirc_remote.bundle_mirrors import Part
from oscirc_remote.deadlines import Deadline

RUN_BYTES = 512 << 10
HELD_BYTES = 8 << 20

FetchBytes = Callable[[int, int, Deadline], Part]
"""Bytes `start` to `stop` of the pack, or a `TransportError`."""


@dataclass(slots=True)
class _Run:
    """A request under way."""

    done: threading.Event = field(default_factory=threading.Event)


class PackRuns:
    """The frames of one pack. Safe for threads; no lock is held while the network is waited for."""

    def __init__(self, records: Sequence[Record], is_wanted: Callable[[Record], bool], fetch: FetchBytes) -> None:
        self._records = [record for record in records if record.length]
        self._numbers = {record.digest: number for number, record in enumerate(self._records)}
        self._is_wanted = is_wanted
        self._fetch = fetch
        self._lock = threading.Lock()
        self._under_way: dict[Digest, _Run] = {}
        self._held: OrderedDict[Digest, Part] = OrderedDict()
        self._held_bytes = 0
        self._given: set[Digest] = set()  # these may still look wanted, while who took them makes its block

    def frame(self, record: Record, deadline: Deadline) -> Part:
        """The frame of a record that has one, and whose it is; raises what the request for it does."""
        while True:
            with self._lock:
                held = self._held.pop(record.digest, None)
                if held is not None:
                    self._held_bytes -= len(held.raw)
                    self._given.add(record.digest)
                    return held
                run = self._under_way.get(record.digest)
                if run is None:
                    run, wanted = _Run(), self._wanted_around(record)
                    self._under_way.update((each.digest, run) for each in wanted)
                    break
            deadline.wait(run.done)
            deadline.check("a record of a delta pack")
        start, raw, source = wanted[0].offset, b"", ""
        try:
            raw, source = self._fetch(start, wanted[-1].offset + wanted[-1].length, deadline)
        finally:
            with self._lock:
                for each in wanted:
                    del self._under_way[each.digest]
                    if raw and each is not record:
                        self._hold(each.digest, Part(_slice(raw, each, start), source))
                if raw:
                    self._given.add(record.digest)
            run.done.set()
        return Part(_slice(raw, record, start), source)

    def forget(self, source: str) -> None:
        """Nothing that is held of this mirror's is to be given out."""
        with self._lock:
            for digest in [digest for digest, part in self._held.items() if part.source == source]:
                self._held_bytes -= len(self._held.pop(digest).raw)

    def _wanted_around(self, record: Record) -> list[Record]:
        """The record and those right before and right behind it that are wanted too, in the order of the pack."""
        at = self._numbers[record.digest]
        first, stop, size = at, at + 1, record.length
        while first and self._may_join(self._records[first - 1], size):
            first -= 1
            size += self._records[first].length
        while stop < len(self._records) and self._may_join(self._records[stop], size):
            size += self._records[stop].length
            stop += 1
        return self._records[first:stop]

    def _may_join(self, record: Record, size: int) -> bool:
        """Whether it is to come with a request for `size` bytes beside it."""
        digest = record.digest
        if size + record.length > RUN_BYTES or digest in self._held or digest in self._under_way:
            return False
        return digest not in self._given and self._is_wanted(record)

    def _hold(self, digest: Digest, frame: Part) -> None:
        self._held[digest] = frame
        self._held_bytes += len(frame.raw)
        while self._held_bytes > HELD_BYTES:
            _, forgotten = self._held.popitem(last=False)
            self._held_bytes -= len(forgotten.raw)


def _slice(raw: bytes, record: Record, start: int) -> bytes:
    """The frame of a record in bytes of the pack from `start` on."""
    return raw[record.offset - start :][: record.length]
