"""Brings one bundle into the cache: the segments that are missing, in order, from whichever mirror serves them.

Rules:

- One process streams (`stream_files`); the others follow: they know the index, wait for what comes, take over when the
  holder ends.
- A segment of which at least half is missing is fetched, unless delta packs make what is missing cheaper by single
  requests, to which it is left as that of the other segments.
  Their nodes are fetched so before (`load_nodes`), since they say what is wanted of the segments that come.
- An entry is kept only where the signed table wants it (`bundle_contents`). A bundle with much else is a lie and is
  left; one that is listed as longer than its disk is not even asked for.
- A mirror that breaks off, stalls or lies is reported and the next goes on at the segment that broke.
- What fails and may heal is tried again, with pauses, until it is closed; a server that refuses, and bytes that come
  and never bring a block, a few times (`bundle_tries`).
- Only an `OscircError` leaves `run`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.bundle import HEAD_SIZE, Entry, Segment
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, OscircError, TransportError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.segment import SegmentSource, decode
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_contents import BundleContents, Keeper, Listed
from oscirc_remote.bundle_feed import BundleFeed, NobodyLeft, StreamMirrors
from oscirc_remote.bundle_tries import Tries
from oscirc_remote.counters import Counters
from oscirc_remote.downloads import Download
from oscirc_remote.saving import Saver
from oscirc_remote.stream_files import TAG_BYTES, StreamFiles, Told

UNASKED_BYTES = 4 << 20
FOLLOW_S, LONGEST_FOLLOW_S = 0.01, 0.08


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
        load_nodes: Callable[[Sequence[Digest]], None] = lambda _digests: None,
    ) -> None:
        self._load_nodes = load_nodes
        self._listed = Listed(accelerator, manifest_digest, manifest)
        self._keeper = keeper
        self._arrivals = arrivals
        self._files = files
        self._leading = leading
        self._feed = BundleFeed(accelerator, mirrors, early)
        self._on_block = on_block
        self._contents: BundleContents | None = None
        self._last_contents: BundleContents | None = None  # also where they turned out to be contradicted
        self._index_source = ""  # the mirror that the index came from; nothing for one that was kept
        self._closing = threading.Event()
        self._saver = Saver()
        self._offset = 0
        self._unasked_bytes = 0
        self._problem: OscircError | None = None
        self.counters = Counters("blocks", "nodes", "failures")
        self.state = "starting"

    def run(self) -> None:
        """Until all of it is here, nobody serves it, or it is closed."""
        try:
            while not self._closing.is_set() and self._may_be_one():
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
        if self._last_contents is not None:
            yield from self._last_contents.left_out()

    def _may_be_one(self) -> bool:
        try:
            self._listed.check_length()
        except DocumentRefusedError as error:
            self._problem, self.state = error, "failed"
            return False
        return True

    @property
    def _brought(self) -> int:
        return self.counters["blocks"] + self.counters["nodes"]

    # leading

    def _lead(self) -> None:
        if not self._feed.is_open and self._contents is None:
            self._use_kept_index(self._files.index())
        tries = Tries()
        while not self._closing.is_set():
            before = self._brought
            try:
                self._fetch_missing(tries.skip)
            except (TransportError, IntegrityError) as error:
                if self._closing.is_set():
                    return
                self.counters.add("failures")
                self._problem = error
                brought, received = self._brought != before, self._feed.received_bytes > 0
                tries.failed(self._blame(error), error, brought=brought, received=received)
            except NobodyLeft:
                if not tries.next_round():
                    self.state = "failed"
                    return
                self._closing.wait(tries.pause_s)
            else:
                self.state = "complete"
                return

    def _blame(self, error: OscircError) -> str:
        """Tell the mirrors whose fault it was; the name of who is not to be asked next.

        Of an index and a segment that contradict each other, from different mirrors, either may be wrong. Then nobody
        is blamed, and the next mirror is asked for both.
        """
        source, index_source = self._feed.source, self._index_source
        contradicted = isinstance(error, IntegrityError) and self._contents is not None
        if contradicted:
            self._contents, self._index_source, self._offset = None, "", 0
            self._files.drop_index()
        if contradicted and source != index_source:
            self._feed.end()
            return index_source
        self._feed.end(error)
        return source

    def _fetch_missing(self, skip: frozenset[str]) -> None:
        """One pass over what is missing; raises what a mirror did."""
        contents = self._contents or self._read_index(skip)
        runs = self._runs(contents)
        self._arrivals.expect(contents.ends(runs), self._offset)
        self.state = "streaming"
        for run in runs:
            start, stop = run[0].offset, run[-1].offset + run[-1].length
            if start != self._offset or not self._feed.reaches(stop):
                self._feed.aim(start, stop, skip)
            self._offset = start
            self._decode(contents, run)
            if self._closing.is_set():
                return
        self._feed.end()

    def _runs(self, contents: BundleContents) -> list[list[Segment]]:
        """What to fetch, with the nodes known that stand elsewhere; else with the segments that bring them."""
        contents.note_nodes()
        runs = contents.missing_runs()
        lacking: list[Digest] = []
        while (found := contents.lacking_nodes(runs)) and found != lacking:
            lacking = found
            self._load_nodes(lacking)
            contents.note_nodes()
        return contents.missing_runs(for_nodes=True) if found else runs

    def _read_index(self, skip: frozenset[str]) -> BundleContents:
        if not self._feed.is_open:
            accelerator = self._listed.accelerator
            root = self._listed.manifest.root.digest
            cold = not self._keeper.has(root) and self._keeper.cost(root, NODE_SIZE) is None
            self._feed.aim(0, accelerator.length if cold else accelerator.index_length or accelerator.length, skip)
        raw = self._feed.take(HEAD_SIZE)
        raw += self._feed.take(self._listed.index_length(raw) - HEAD_SIZE)
        self._contents = self._last_contents = contents = BundleContents(raw, self._listed, self._keeper)
        self._index_source = self._feed.source
        self._files.keep_index(raw)
        self._offset = len(raw)
        return contents

    def _decode(self, contents: BundleContents, segments: Sequence[Segment]) -> None:
        for segment in segments:
            source = SegmentSource(self._feed, segment.length)
            for entry, raw in decode(segment, source):
                self._found(contents, entry.digest, raw)
                self._offset = segment.offset + segment.length - source.left
                self._tell(contents, entry.digest)
                if self._closing.is_set():
                    return

    def _found(self, contents: BundleContents, digest: Digest, raw: bytes) -> None:
        """Take what has come, if the table asks for it."""
        if not contents.accept(digest, raw):
            self._unasked_bytes += len(raw)
            if self._unasked_bytes > UNASKED_BYTES:
                raise DocumentRefusedError("the bundle holds blocks that the image does not have")
            return
        if not self._keeper.has(digest):
            self._keeper.remember_prefetched(digest, raw)
            self._saver.put(lambda: self._keeper.keep(digest, raw))
            self.counters.add("nodes" if len(raw) == NODE_SIZE else "blocks")
        position = contents.position_of(digest)
        if position is not None:
            self._on_block(position)

    def _tell(self, contents: BundleContents, digest: Digest) -> None:
        self._arrivals.moved(self._offset, [digest])
        rate = self._arrivals.progress.rate
        told = Told(self._offset, rate, contents.number_of(digest) + 1, contents.tag)
        self._saver.put(lambda: self._files.tell(told))  # others can read what was saved, no more

    def _use_kept_index(self, raw: bytes | None) -> None:
        """Go by the index that an earlier use, or whoever streams, left; a wrong one is taken away."""
        if raw is None:
            return
        try:
            self._contents = self._last_contents = BundleContents(raw, self._listed, self._keeper)
        except DocumentRefusedError:
            self._files.drop_index()

    # following

    def _follow(self) -> None:
        """Know what another process streams, until it ends."""
        self.state = "following"
        pause_s, dealt_with = FOLLOW_S, 0
        last: Told | None = None
        ends: dict[Digest, int] = {}
        while not self._closing.wait(pause_s) and not self._files.try_lock():
            told, contents = self._files.told(), self._contents
            pause_s = FOLLOW_S if told != last else min(2 * pause_s, LONGEST_FOLLOW_S)
            if contents is None or told.index not in (contents.tag, bytes(TAG_BYTES)):
                self._use_kept_index(self._files.new_index())
                if self._contents is not None and self._contents is not contents:
                    ends, dealt_with = self._contents.ends(self._contents.missing_runs(told.offset)), 0
                    self._arrivals.expect(ends, self._offset)
                    pause_s, last = FOLLOW_S, None
                    continue
            elif told != last:
                done = told.entries if told.index == contents.tag else 0
                came = [entry.digest for entry in contents.entries[dealt_with:done] if entry.digest in ends]
                dealt_with = max(dealt_with, done)
                for digest in came:
                    self._note_arrival(contents, digest)
                self._arrivals.moved(told.offset, came, rate=told.rate)
            last = told
        self._leading = not self._closing.is_set()

    def _note_arrival(self, contents: BundleContents, digest: Digest) -> None:
        """A block that another process fetched, or left out."""
        contents.note_node(digest)
        position = contents.position_of(digest)
        if position is not None and self._keeper.has(digest):
            self._on_block(position)
