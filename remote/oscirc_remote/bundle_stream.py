"""Brings one bundle into the cache: the segments that are missing, in order, from whichever mirror serves them.

Rules:

- One process streams (`stream_files`); the others follow: they know the index, wait for what comes, take over when the
  holder ends.
- A segment of which at least half is missing is fetched; what is missing of the others is left for single requests.
- An entry is kept only where the signed table wants it (`wanted`). A bundle with much else is a lie and is left.
- A mirror that breaks off, stalls or lies is reported and the next goes on at the segment that broke.
- What fails and may heal is tried again, with pauses, until it is closed; a server that refuses, a few times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.bundle import (
    HEAD_SIZE,
    BundleIndex,
    Entry,
    Segment,
    bounds,
    index_length,
    parse_index,
)
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    IntegrityError,
    NotServedError,
    OscircError,
    TransportError,
    UnreachableError,
)
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.segment import SegmentSource, decode
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_feed import BundleFeed, NobodyLeft, StreamMirrors
from oscirc_remote.counters import Counters
from oscirc_remote.downloads import Download
from oscirc_remote.saving import Saver
from oscirc_remote.stream_files import TAG_BYTES, StreamFiles, Told, tag
from oscirc_remote.wanted import Wanted

REFUSALS = 4
UNASKED_BYTES = 4 << 20
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
FOLLOW_S = 0.01

_NETWORK = (UnreachableError, DeadlineExceededError)
_LIES = (IntegrityError, DocumentRefusedError)


class Keeper(Protocol):
    """The cache, as a stream needs it."""

    def has(self, digest: Digest) -> bool:
        """Whether the store claims to have it."""

    def resident(self, digest: Digest, raw_size: int) -> bytes | None:
        """The verified bytes if they are here."""

    def remember_prefetched(self, digest: Digest, raw: bytes) -> None:
        """Take verified bytes that came before they were asked for into memory."""

    def keep(self, digest: Digest, raw: bytes) -> None:
        """Write verified bytes to the store; what it does not take is no error."""


class BundleStream:
    """One bundle of one image. `run` blocks: it has a thread of its own."""

    def __init__(
        self,
        accelerator: Accelerator,
        manifest_digest: Digest,
        manifest: Manifest,
        keeper: Keeper,
        mirrors: StreamMirrors,
        arrivals: Arrivals,
        files: StreamFiles,
        *,
        leading: bool = False,
        early: Download | None = None,
        on_block: Callable[[int], None] = lambda _position: None,
    ) -> None:
        self._accelerator = accelerator
        self._manifest_digest = manifest_digest
        self._block_size = manifest.geometry.block_size
        self._keeper = keeper
        self._mirrors = mirrors
        self._arrivals = arrivals
        self._files = files
        self._leading = leading
        self._feed = BundleFeed(accelerator, mirrors, early)
        self._on_block = on_block
        self._root = manifest.root
        self._bounds = bounds(manifest.geometry, manifest.data_blocks)
        self._geometry = manifest.geometry
        self._wanted = Wanted(manifest.geometry, manifest.root, ())
        self._index: BundleIndex | None = None
        self._entries: list[Entry] = []
        self._numbers: dict[Digest, int] = {}
        self._tag = bytes(TAG_BYTES)
        self._index_source = ""  # the mirror that it came from; nothing for one that was kept
        self._closing = threading.Event()
        self._saver = Saver()
        self._offset = 0
        self._done_entries = 0
        self._came: list[Digest] = []
        self._unasked_bytes = 0
        self._problem: OscircError | None = None
        self.counters = Counters("blocks", "nodes", "failures")
        self.state = "starting"

    def run(self) -> None:
        """Until all of it is here, nobody serves it, or it is closed."""
        try:
            if self._accelerator.length > self._bounds.length:
                self._problem = DocumentRefusedError("the bundle is longer than all nodes and blocks of the disk")
                self.state = "failed"
            while not self._closing.is_set() and self.state != "failed":
                self._leading = self._leading or self._files.try_lock()
                if self._leading:
                    self._lead()
                    return
                self._follow()
        finally:
            self._saver.close()
            if self.state not in ("complete", "failed"):
                self.state = "ended"
            self._arrivals.end()
            self._feed.end()
            self._files.close()

    def close(self) -> None:
        """Let `run` return soon."""
        self._closing.set()
        self._feed.close()
        self._arrivals.end()

    @property
    def problem(self) -> OscircError | None:
        """Why it failed last, if it did."""
        return self._problem

    def left_out(self) -> Iterator[Entry]:
        """What it names, the table wants and is not here: for single requests, in order."""
        for entry in self._entries:
            asked = entry.raw_size == NODE_SIZE or self._wanted.position_of(entry.digest) is not None
            if asked and not self._keeper.has(entry.digest):
                yield entry

    @property
    def _brought(self) -> int:
        return self.counters["blocks"] + self.counters["nodes"]

    # leading

    def _lead(self) -> None:
        if not self._feed.is_open and self._index is None:
            self._use_kept_index()
        pause_s, tried, rounds = FIRST_PAUSE_S, frozenset[str](), 0
        while not self._closing.is_set():
            before = self._brought
            try:
                self._fetch_missing(tried)
            except (TransportError, IntegrityError, DocumentRefusedError) as error:
                if self._closing.is_set():
                    return
                self.counters.add("failures")
                self._problem = error
                if self._brought != before:  # a mirror that always fails at the same place makes none
                    pause_s, tried, rounds = FIRST_PAUSE_S, frozenset(), 0
                tried |= {self._blame(error)}
            except NobodyLeft:
                rounds += 1
                if isinstance(self._problem, (NotServedError, *_LIES)) or (
                    rounds > REFUSALS and not isinstance(self._problem, _NETWORK)
                ):
                    self.state = "failed"
                    return
                self._closing.wait(pause_s)
                pause_s, tried = min(2 * pause_s, LONGEST_PAUSE_S), frozenset()
            else:
                self.state = "complete"
                return

    def _blame(self, error: OscircError) -> str:
        """Tell the mirrors whose fault it was; the name of who is not to be asked next.

        Of an index and a segment that contradict each other, from different mirrors, either may be wrong. Then nobody
        is blamed, and the next mirror is asked for both.
        """
        source, index_source = self._feed.source, self._index_source
        contradicted = isinstance(error, _LIES) and self._index is not None
        if contradicted:
            self._index, self._index_source, self._offset = None, "", 0
            self._files.drop_index()
        if contradicted and source != index_source:
            self._feed.end()
            return index_source
        self._feed.end(error)
        return source

    def _fetch_missing(self, skip: frozenset[str]) -> None:
        """One pass over what is missing; raises what a mirror did."""
        if self._index is None:
            self._read_index(skip)
        runs = self._runs()
        self._expect([segment for run in runs for segment in run])
        self.state = "streaming"
        for run in runs:
            start, stop = run[0].offset, run[-1].offset + run[-1].length
            if start != self._offset or not self._feed.reaches(stop):
                self._feed.aim(start, stop, skip)
            self._offset = start
            self._decode(run)
            if self._closing.is_set():
                return
        self._feed.end()

    def _read_index(self, skip: frozenset[str]) -> None:
        if not self._feed.is_open:
            cold = not self._keeper.has(self._root.digest)
            stop = self._accelerator.length if cold else self._accelerator.index_length or self._accelerator.length
            self._feed.aim(0, stop, skip)
        raw = self._feed.take(HEAD_SIZE)
        length = index_length(raw, self._bounds.entries)
        if length > self._accelerator.length:
            raise DocumentRefusedError("a bundle's index is longer than the listing says the bundle is")
        raw += self._feed.take(length - HEAD_SIZE)
        self._learn(raw)
        self._index_source = self._feed.source
        self._files.keep_index(raw)
        self._offset = length

    def _decode(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            source = SegmentSource(self._feed, segment.length)
            for entry, raw in decode(segment, source):
                self._found(entry.digest, raw)
                self._offset = segment.offset + segment.length - source.left
                self._tell()
                if self._closing.is_set():
                    return

    def _found(self, digest: Digest, raw: bytes) -> None:
        self._done_entries = self._numbers[digest] + 1
        if not self._wanted.accept(digest, raw):
            self._unasked_bytes += len(raw)
            if self._unasked_bytes > UNASKED_BYTES:
                raise DocumentRefusedError("the bundle holds blocks that the image does not have")
            return
        if not self._keeper.has(digest):
            self._keeper.remember_prefetched(digest, raw)
            self._saver.put(lambda: self._keeper.keep(digest, raw))
            self.counters.add("nodes" if len(raw) == NODE_SIZE else "blocks")
        self._came.append(digest)
        position = self._wanted.position_of(digest)
        if position is not None:
            self._on_block(position)

    def _tell(self) -> None:
        came, self._came = self._came, []
        self._arrivals.moved(self._offset, came)
        told = Told(self._offset, self._arrivals.progress.rate, self._done_entries, self._tag)
        self._saver.put(lambda: self._files.tell(told))  # others can read what was saved, no more

    # the index, and what of it is missing

    def _use_kept_index(self) -> None:
        """Go by the index that an earlier use, or whoever streams, left; a wrong one is taken away."""
        raw = self._files.index()
        if raw is None:
            return
        try:
            self._learn(raw)
        except DocumentRefusedError:
            self._files.drop_index()

    def _learn(self, raw: bytes) -> None:
        """Take an index that was judged, and what is wanted from the nodes that are here already.

        Raises `DocumentRefusedError` for one that is not of the bundle that was listed for this image.
        """
        index = parse_index(raw, self._bounds.entries)
        if index.manifest != self._manifest_digest or index.block_size != self._geometry.block_size:
            raise DocumentRefusedError("the bundle was made for another image")
        if index.length != self._accelerator.length:
            raise DocumentRefusedError("the bundle is not as long as it was listed")
        self._index, self._tag = index, tag(raw)
        self._entries = [entry for segment in index.segments for entry in segment.entries]
        self._numbers = {entry.digest: number for number, entry in enumerate(self._entries)}
        self._wanted = Wanted(self._geometry, self._root, self._numbers)
        self._done_entries = 0
        for entry in self._entries:
            if entry.raw_size == NODE_SIZE:
                node = self._keeper.resident(entry.digest, NODE_SIZE)
                if node is not None:
                    self._wanted.accept(entry.digest, node)

    def _runs(self, under_way_at: int = -1) -> list[list[Segment]]:
        """Segments to fetch, in runs that follow one another in the file.

        The one in which another's stream is now comes to its end, however much of it is here already.
        """
        runs: list[list[Segment]] = []
        for segment in self._index.segments if self._index else ():
            missing = sum(entry.raw_size for entry in segment.entries if not self._keeper.has(entry.digest))
            under_way = segment.offset <= under_way_at < segment.offset + segment.length
            if not missing or (2 * missing < segment.raw_length and not under_way):
                continue
            if runs and runs[-1][-1].offset + runs[-1][-1].length == segment.offset:
                runs[-1].append(segment)
            else:
                runs.append([segment])
        return runs

    def _expect(self, segments: Sequence[Segment]) -> dict[Digest, int]:
        """Let reads wait for what these bring; where each of it ends in the file."""
        ends: dict[Digest, int] = {}
        for segment in segments:
            raw_end = 0
            for entry in segment.entries:
                raw_end += entry.raw_size
                if not self._keeper.has(entry.digest):
                    ends[entry.digest] = segment.offset + segment.length * raw_end // segment.raw_length
        self._arrivals.expect(ends, self._offset)
        return ends

    # following

    def _follow(self) -> None:
        """Know what another process streams, until it ends."""
        self.state = "following"
        ends: dict[Digest, int] = {}
        while not self._closing.wait(FOLLOW_S) and not self._files.try_lock():
            told = self._files.told()
            if self._index is None or told.index not in (self._tag, bytes(TAG_BYTES)):
                self._use_kept_index()
                if self._index is not None:
                    ends = self._expect([segment for run in self._runs(told.offset) for segment in run])
                continue
            dealt_with = told.entries if told.index == self._tag else 0
            came = [digest for digest in ends if self._numbers[digest] < dealt_with]
            for digest in came:
                del ends[digest]
                self._note_arrival(digest)
            self._arrivals.moved(told.offset, came, rate=told.rate)
        self._leading = not self._closing.is_set()

    def _note_arrival(self, digest: Digest) -> None:
        """A block that another process fetched, or left out."""
        if self._wanted.lacks_node(digest):
            node = self._keeper.resident(digest, NODE_SIZE)
            if node is not None:
                self._wanted.accept(digest, node)
        position = self._wanted.position_of(digest)
        if position is not None and self._keeper.has(digest):
            self._on_block(position)
