"""A bundle that is asked for while trust is still being checked.

Verifying a channel takes some eight round trips, one after another; the link is idle meanwhile. The repository's
unsigned hint says which disk a channel means and which bundles there are. So the bundle is started on the hint's word,
and its bytes wait, bounded and undecoded, until the signed documents have named the disk. If they name another, they
are dropped.

Who has another version of the image already is not helped by the whole bundle: then nothing is begun before it is known
what is missing, and what that costs (`bundle_contents`).

The first mirror that has a hint is asked for the bundle too. Where there are several, one that is silent is left soon.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import Accelerator, Listing
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import DocumentRefusedError, OscircError, TransportError
from oscirc_remote.bundle_mirrors import download
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.downloads import Download
from oscirc_remote.http_client import HttpClient
from oscirc_remote.stream_files import StreamFiles

log = logging.getLogger(__name__)

HINT_S = 5.0
HINT_OF_SEVERAL_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is to be had: base URLs, the preferred one first; and the manifests of it that were used here."""

    urls: Sequence[str]
    known: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class Started:
    """What an early start has: the listing that was hinted, and the bundle under way if this process leads it."""

    listing: Listing
    bundle: Accelerator | None = None
    files: StreamFiles | None = None
    download: Download | None = None

    def drop(self) -> None:
        """End it."""
        if self.download is not None:
            self.download.close()
        if self.files is not None:
            self.files.close()


class EarlyBundle:
    """Starts at once, in a thread. Then `claim` it once the manifest is verified, or `drop` it."""

    def __init__(
        self,
        where: Callable[[], Place],
        publisher: str,
        image: str,
        channel: str,
        profile: str,
        cache_directory: Path,
    ) -> None:
        self._where = where
        self._publisher, self._image, self._channel = publisher, image, channel
        self._profile = profile
        self._cache_directory = cache_directory
        self._cancellation = Cancellation()
        self._clients: list[HttpClient] = []
        self._started: Started | None = None
        self._lock = threading.Lock()
        self._dropped = self._claimed = False
        self._thread = threading.Thread(target=self._run, name="oscirc-early", daemon=True)
        self._thread.start()

    def claim(self, manifest: Digest, timeout_s: float = HINT_S) -> Started | None:
        """What was started, if the hint was right about the disk; its download and files are the caller's then."""
        self._thread.join(timeout_s)
        with self._lock:
            started, self._started, self._dropped = self._started, None, True
            self._claimed = started is not None and started.listing.manifest == manifest
        if started is not None and started.listing.manifest != manifest:
            started.drop()
            started = None
        if started is None:
            self.drop()
        else:
            self._let_go(started.download)
        return started

    def drop(self) -> None:
        """Nobody wants what was not claimed."""
        self._cancellation.cancel("the image is another")
        with self._lock:
            started, self._started, self._dropped = self._started, None, True
            claimed = self._claimed
        if started is not None:
            started.drop()
        if not claimed:
            self._let_go(None)

    def _let_go(self, download: Download | None) -> None:
        """Close the connections, but those of a download that is somebody else's now."""
        for client in list(self._clients):
            if download is None or client.base_url != download.source:
                client.close()

    @property
    def requests(self) -> int:
        """Requests sent for it so far."""
        return sum(client.counters["requests"] for client in self._clients)

    @property
    def received_bytes(self) -> int:
        """Bytes received for it so far."""
        return sum(client.counters["received_bytes"] for client in self._clients)

    def _run(self) -> None:
        try:
            started = self._start()
        except OscircError:
            return
        except Exception:  # a mistake of ours: the mount goes on without
            log.exception("an early start ended")
            return
        with self._lock:
            if not self._dropped:
                self._started, started = started, None
        if started is not None:
            started.drop()

    def _start(self) -> Started | None:
        place = self._where()
        deadline = Deadline.after(HINT_S, self._cancellation)
        for url in place.urls:
            client = HttpClient(url)
            self._clients.append(client)
            with contextlib.suppress(TransportError, DocumentRefusedError):
                return self._start_from(client, deadline, place)
        return None

    def _start_from(self, client: HttpClient, deadline: Deadline, place: Place) -> Started | None:
        several = len(place.urls) > 1
        path = accelerators.hint_path(self._publisher, self._image)
        until = deadline.at_most(HINT_OF_SEVERAL_S) if several else deadline
        hint = accelerators.parse_hint(client.get(path, accelerators.MAX_HINT_BYTES, until))
        listing = hint.channels.get(self._channel)
        if listing is None:
            return None
        bundle = listing.bundle_for(self._profile)
        if bundle is None:
            return Started(listing)
        if place.known and listing.manifest not in place.known:
            return Started(listing, bundle)
        files = StreamFiles(self._cache_directory, bundle.sha256)
        # an index that is here was left by an earlier use: then not all of the bundle may be needed
        if files.has_index() or not files.try_lock():
            files.close()
            return Started(listing, bundle)
        try:
            return Started(listing, bundle, files, download(client, bundle, 0, bundle.length, several=several))
        except OscircError:
            files.close()
            raise
