"""Frames of a delta pack, those that follow one another in one request: for who wants all of an image.

Whoever asks for a record first asks for those behind it too, as far as they are wanted and up to `RUN_BYTES`; who comes
for one of these meanwhile waits for that request instead of making another. What came and is not asked for is forgotten
when `HELD_BYTES` are held. A request that fails fails for the one that made it; the others then ask for themselves.
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

    def frame(self, record: Record, deadline: Deadline) -> Part:
        """The frame of a record that has one, and whose it is; raises what the request for it does."""
        while True:
            with self._lock:
                held = self._held.pop(record.digest, None)
                if held is not None:
                    self._held_bytes -= len(held.raw)
                    return held
                run = self._under_way.get(record.digest)
                if run is None:
                    run, wanted = _Run(), self._wanted_from(record)
                    self._under_way.update((each.digest, run) for each in wanted)
                    break
            deadline.wait(run.done)
            deadline.check("a record of a delta pack")
        start, raw, source = record.offset, b"", ""
        try:
            raw, source = self._fetch(start, wanted[-1].offset + wanted[-1].length, deadline)
        finally:
            with self._lock:
                for each in wanted:
                    del self._under_way[each.digest]
                    if raw and each is not record:
                        self._hold(each.digest, Part(raw[each.offset - start :][: each.length], source))
            run.done.set()
        return Part(raw[: record.length], source)

    def forget(self, source: str) -> None:
        """Nothing that is held of this mirror's is to be given out."""
        with self._lock:
            for digest in [digest for digest, part in self._held.items() if part.source == source]:
                self._held_bytes -= len(self._held.pop(digest).raw)

    def _wanted_from(self, record: Record) -> list[Record]:
        """The record and those right behind it that are wanted too."""
        run = [record]
        size = record.length
        for other in self._records[self._numbers[record.digest] + 1 :]:
            size += other.length
            if size > RUN_BYTES or other.digest in self._held or other.digest in self._under_way:
                break
            if not self._is_wanted(other):
                break
            run.append(other)
        return run

    def _hold(self, digest: Digest, frame: Part) -> None:
        self._held[digest] = frame
        self._held_bytes += len(frame.raw)
        while self._held_bytes > HELD_BYTES:
            _, forgotten = self._held.popitem(last=False)
            self._held_bytes -= len(forgotten.raw)
