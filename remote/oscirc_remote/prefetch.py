"""What a mount fetches before it is asked for: a bundle, a profile's blocks, or what boots usually read; then all.

Where no boot of the image was recorded, `foresight` says what a boot will read, and guesses of neighbours
(`look_ahead`) run beside it; where one was, they begin when its blocks are here. The rest only if wished.

One thread per mount, started with the reader and ended with it. Nothing here decides what a read returns, and nothing
that fails here is an error of reading: the worst is that a read waits for its own request.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import accelerators, profile
from oscirc_blockstore.accelerators import Accelerator, Listing
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import DocumentRefusedError, OscircError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.profile import Profile
from oscirc_remote import foresight
from oscirc_remote.arrivals import Arrivals
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.bundle_stream import BundleStream
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.early import EarlyBundle, Started
from oscirc_remote.filling import Filler
from oscirc_remote.flights import Flight
from oscirc_remote.image_blocks import ImageBlocks
from oscirc_remote.left_alone import LeftAlone
from oscirc_remote.look_ahead import LookAhead
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.packs import Packs
from oscirc_remote.rate_limits import RateLimit
from oscirc_remote.readiness import keep_listing, keep_profile
from oscirc_remote.status import PrefetchStatus
from oscirc_remote.stream_files import StreamFiles
from oscirc_remote.table_view import TableView

log = logging.getLogger(__name__)

LISTING_S = 5.0
AHEAD_S = 60.0
AHEAD_QUEUED = 32
DEFAULT_PROFILE = profile.DEFAULT_NAME


@dataclass(frozen=True, slots=True)
class PrefetchOptions:
    """What to fetch ahead. `fill_bytes_per_s` None: nothing beyond the profile; 0: as fast as it comes."""

    bundles: bool = True
    profile: str = DEFAULT_PROFILE
    guesses: bool = True
    fill_bytes_per_s: float | None = None


class Prefetcher:
    """Fetches ahead for one image. `on_block(position)` is called, from its thread, for what a bundle brought."""

    def __init__(
        self,
        manifest_digest: Digest,
        manifest: Manifest,
        source: CachedSource,
        mirrors: MirroredSource,
        cache_directory: Path,
        *,
        options: PrefetchOptions,
        look_ahead: LookAhead,
        table: TableView,
        early: EarlyBundle | None = None,
        rate_limit: RateLimit | None = None,
        packs: Packs | None = None,
        left_alone: LeftAlone | None = None,
    ) -> None:
        self._left_alone = left_alone
        self._manifest_digest = manifest_digest
        self._manifest = manifest
        self._source = source
        self._streams = BundleMirrors(mirrors, rate_limit)
        self._cache_directory = cache_directory
        self._options = options
        self._look_ahead = look_ahead
        block_size = manifest.geometry.block_size
        self._queued = rate_limit.at_once(block_size, AHEAD_QUEUED) if rate_limit else AHEAD_QUEUED
        self._image = ImageBlocks(table, source, self._deadline)
        self._early = early
        self._packs = packs
        self._arrivals = Arrivals()
        self._cancellation = Cancellation()
        self._stream: BundleStream | None = None
        self._bundle: Accelerator | None = None
        self._state = "starting"
        self._problem = ""
        self._lock = threading.Lock()
        self._settled = self._recorded = False
        self._waiting: list[Callable[[], None]] = []
        self.on_block: Callable[[int], None] = lambda _position: None
        self._thread = threading.Thread(target=self._run, name="oscirc-prefetch", daemon=True)

    def start(self) -> None:
        """Begin; reads wait for the bundle from now on."""
        self._source.wait_for_arrivals(self._arrivals)
        self._thread.start()

    def close(self) -> None:
        """End it; waits a moment for its thread."""
        self._cancellation.cancel("this image is being closed")
        if self._early is not None:
            self._early.drop()
        stream = self._stream
        if stream is not None:
            stream.close()
        self._arrivals.end()
        self._streams.close()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def status(self) -> PrefetchStatus:
        """What it does and did."""
        stream, bundle, early = self._stream, self._bundle, self._early
        return PrefetchStatus(
            state=stream.state if stream is not None and self._state == "bundle" else self._state,
            profile=self._options.profile,
            bundle_bytes=bundle.length if bundle else 0,
            streamed_bytes=self._streams.received_bytes + (early.received_bytes if early else 0),
            requests=self._streams.requests + (early.requests if early else 0),
            blocks=stream.counters["blocks"] if stream else 0,
            failures=stream.counters["failures"] if stream else 0,
            last_problem=str(stream.problem) if stream and stream.problem else self._problem,
        )

    def _run(self) -> None:
        try:
            self._fetch_ahead()
        except OscircError as error:
            self._problem = str(error)
            self._state = "failed"
        except Exception:  # a mistake of ours must not take reads with it
            log.exception("fetching ahead ended")
            self._state = "failed"
        finally:
            self._settle()

    def on_settled(self, settled: Callable[[], None]) -> None:
        """Have it called once the bundle or profile has come, or will not come; at once where that was before."""
        with self._lock:
            if not self._settled:
                self._waiting.append(settled)
                return
        settled()

    def _settle(self) -> None:
        self._arrivals.end()
        with self._lock:
            waiting, self._waiting, self._settled = self._waiting, [], True
        for settled in waiting:
            settled()

    def _fetch_ahead(self) -> None:
        started = self._early.claim(self._manifest_digest) if self._early is not None else None
        hinted = started.listing if started else None
        if hinted is not None:
            self._tried(lambda: self._use(hinted, started))
        if self._options.bundles and not self._recorded and not self._closing:
            self._tried(lambda: self._use_listing(hinted))
        elif not self._options.bundles and self._packs is not None and self._packs.may_help:
            self._tried(self._use_packs_alone)
        self._arrivals.end()
        if self._options.guesses:
            self._look_ahead.guess()
            if not self._recorded:
                self._state = "foresight"
                self._tried(self._foresee)
        self._settle()
        if self._options.fill_bytes_per_s is not None and not self._closing:
            self._state = "filling"
            self._fill(self._options.fill_bytes_per_s)
        self._state = "idle"

    def _tried(self, stage: Callable[[], None]) -> None:
        """One stage; where it fails the next ones go on without it."""
        try:
            stage()
        except OscircError as error:
            self._problem = str(error)

    def _use_listing(self, hinted: Listing | None) -> None:
        listing = self._listing()
        if listing is not None and listing != hinted:  # a hint is no more than that
            self._use(listing, None)

    def _use_packs_alone(self) -> None:
        listing = self._listing()
        if listing is not None:
            self._use_packs(listing)

    def _use(self, listing: Listing, started: Started | None) -> None:
        """Fetch the bundle that is listed, or else the blocks of the profile."""
        keep_listing(self._cache_directory, listing.serialise(), self._manifest_digest)
        self._use_packs(listing)
        self._bundle = listing.bundle_for(self._options.profile)
        recorded = listing.profile_for(self._options.profile)
        if self._bundle is not None:
            self._run_bundle(self._bundle, started)
            self._recorded = not self._stream_failed()
        self._arrivals.end()
        if recorded is not None and not self._recorded and not self._closing:
            self._state = "profile"
            self._ahead(self._profile_entries(recorded))

    def _use_packs(self, listing: Listing) -> None:
        """First of all: with a pack less is to be fetched, whatever fetches it."""
        if self._packs is not None and self._packs.may_help:
            self._packs.use(listing, Deadline.after(LISTING_S, self._cancellation))

    def _arrived(self, position: int) -> None:
        self.on_block(position)  # set, or set anew, while the stream runs

    @property
    def _closing(self) -> bool:
        return bool(self._cancellation.reason)

    def _stream_failed(self) -> bool:
        return self._stream is not None and self._stream.state == "failed"

    def _listing(self) -> Listing | None:
        """The listing of this disk, from the first mirror that has one."""

        def judged(raw: bytes) -> Listing:
            listing = accelerators.parse_listing(raw)
            if listing.manifest != self._manifest_digest:
                raise DocumentRefusedError("a listing of another disk")
            return listing

        path = accelerators.listing_path(self._manifest_digest)
        deadline = Deadline.after(LISTING_S, self._cancellation)
        return self._streams.get(path, accelerators.MAX_LISTING_BYTES, deadline, judged)

    def _run_bundle(self, bundle: Accelerator, started: Started | None) -> None:
        self._state = "bundle"
        files = started.files if started and started.files else StreamFiles(self._cache_directory, bundle.sha256)
        self._stream = BundleStream(
            bundle,
            self._manifest_digest,
            self._manifest,
            self._source,
            self._streams,
            self._arrivals,
            files,
            leading=started is not None and started.files is not None,
            early=started.download if started else None,
            on_block=self._arrived,
            load_nodes=self._image.fetch_nodes,
        )
        if self._closing:
            self._stream.close()
        self._stream.run()
        if not self._closing:
            self._ahead(self._stream.left_out())

    def _profile_entries(self, accelerator: Accelerator) -> Iterator[Entry]:
        """What a profile names, in order; its nodes are fetched on the way."""
        if accelerator.length > profile.MAX_PROFILE_BYTES:
            return

        def judged(raw: bytes) -> tuple[bytes, Profile]:
            verify(raw, accelerator.sha256)
            return raw, profile.parse(raw)

        found = self._streams.get(accelerator.path, accelerator.length, self._deadline(), judged)
        if found is None or found[1].manifest != self._manifest_digest:
            return
        raw, recorded = found
        keep_profile(self._cache_directory, raw, accelerator.sha256)
        self._recorded = True
        for position in recorded.positions:
            if position >= self._image.count:
                return
            yield from self._entry(position)

    def _entry(self, position: int) -> Iterator[Entry]:
        digest = None if self._closing else self._image.digest_at(position)
        if digest is not None:
            yield Entry(digest, self._image.block_size)

    def _foresee(self) -> None:
        """Once reads have begun: what a boot will read, never further ahead of them than they have shown it right."""
        self._look_ahead.wait_for_reads(lambda: self._closing or self._fills)
        if self._closing:
            return
        plan = foresight.plan(self._image)
        signs = {sign: at for at, group in enumerate(plan.conditional) for sign in group.signs}
        self._look_ahead.watch_for(signs)
        self._look_ahead.foresee([*plan.looked_at, *plan.foreseen])
        if self._left_alone is not None:
            self._left_alone.weigh(plan.foreseen)
        self._ahead(entry for position in self._foreseen(plan) for entry in self._with_room(position))

    def _foreseen(self, plan: foresight.Plan) -> Iterator[int]:
        """What is foreseen, and in between what reads have shown the condition of."""
        for position in plan.foreseen:
            yield from self._fulfilled(plan)
            yield position
        if plan.conditional and not self._fills:
            self._settle()
            self._state = "idle"
            while self._look_ahead.wait_for_sign(lambda: self._closing):
                self._state = "foresight"
                yield from self._fulfilled(plan)
                self._state = "idle"

    def _fulfilled(self, plan: foresight.Plan) -> Iterator[int]:
        while (condition := self._look_ahead.fulfilled()) is not None:
            positions = plan.conditional[condition].positions
            self._look_ahead.foresee(positions)
            yield from positions

    def _with_room(self, position: int) -> Iterator[Entry]:
        if self._left_alone is not None and self._left_alone.passes_foreseen(position):
            return
        for entry in self._entry(position):
            if not self._source.has(entry.digest):
                if not (self._look_ahead.has_room() or self._fills):
                    self._settle()  # it keeps up with the guest: no more comes before reads have caught up
                    self._look_ahead.wait_for_room(lambda: self._closing)
                self._look_ahead.fetching(position)
                yield entry

    @property
    def _fills(self) -> bool:
        return self._options.fill_bytes_per_s is not None

    def _ahead(self, wanted: Iterator[Entry]) -> None:
        """Fetch these in order, never more than a few beyond what has come."""
        flying: list[Flight] = []
        for entry in wanted:
            if self._closing:
                return
            if self._source.has(entry.digest):
                continue
            flying.append(self._source.prefetch(entry.digest, entry.raw_size, self._deadline()))
            while len(flying) >= self._queued:
                self._land(flying.pop(0))
        for flight in flying:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        with contextlib.suppress(OscircError):
            flight.wait(self._deadline())

    def _fill(self, bytes_per_s: float) -> None:
        table = TableView(self._manifest.geometry, self._manifest.root)
        problem = Filler(self._source, self._cancellation, bytes_per_s).fill(table)
        self._problem = problem or self._problem

    def _deadline(self) -> Deadline:
        return Deadline.after(AHEAD_S, self._cancellation)
