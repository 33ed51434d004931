"""Puts the layers of the read path together: from a resolved reference and a cache directory to an image reader.

Call these in the process that reads: threads, connections and locks do not survive a fork.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import Listing
from oscirc_blockstore.errors import DocumentRefusedError, NotServedError, OscircError, TransportError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.profile import DEFAULT_NAME
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import paths, uses
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.cache import BLOCK_MEMORY_BYTES, NODE_MEMORY_BYTES, CachedSource
from oscirc_remote.cache_layout import STORE_DIRECTORY
from oscirc_remote.deadlines import Deadline
from oscirc_remote.early import EarlyBundle, Place
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.http_client import HttpClient
from oscirc_remote.image import DEFAULT_DEADLINE_S, ImageReader
from oscirc_remote.image_blocks import ImageBlocks
from oscirc_remote.left_alone import LeftAlone, earlier_table
from oscirc_remote.local_files import make_directory, read_bytes
from oscirc_remote.look_ahead import LookAhead
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.pack_search import PackSearch
from oscirc_remote.pack_source import PackSource
from oscirc_remote.packs import Packs, known_manifests
from oscirc_remote.prefetch import LISTING_S, Prefetcher, PrefetchOptions
from oscirc_remote.quota import Quota
from oscirc_remote.rate_limits import RateLimit
from oscirc_remote.readiness import ProfileWatch, listing_file
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.references import Reference
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolved
from oscirc_remote.table_view import TableView


def open_source(
    urls: Sequence[str],
    cache_directory: Path | None = None,
    *,
    block_memory_bytes: int = BLOCK_MEMORY_BYTES,
    node_memory_bytes: int = NODE_MEMORY_BYTES,
    rate_limit: RateLimit | None = None,
    quota: Quota | None = None,
) -> CachedSource:
    """Verified blocks from these base URLs (the preferred one first) through the cache in `cache_directory`.

    Nothing is known of an image here, so delta packs are not used: see `open_whole`.
    """
    return _cached(
        _mirrored(urls, rate_limit),
        cache_directory or paths.cache_directory(),
        block_memory_bytes=block_memory_bytes,
        node_memory_bytes=node_memory_bytes,
        quota=quota,
    )


def open_image(
    resolved: Resolved,
    cache_directory: Path | None = None,
    *,
    deadline_s: float = DEFAULT_DEADLINE_S,
    block_memory_bytes: int = BLOCK_MEMORY_BYTES,
    node_memory_bytes: int = NODE_MEMORY_BYTES,
    prefetch: PrefetchOptions | None = None,
    early: EarlyBundle | None = None,
    rate_limit: RateLimit | None = None,
    quota: Quota | None = None,
) -> ImageReader:
    """The reader of a resolved image; `cache_directory` is the user's own unless given. Close it when done.

    `prefetch` says what to fetch before it is asked for (None: nothing; delta packs are looked for all the same),
    `early` is a bundle that was started already; it belongs to the reader from now on. What the image needs is not
    evicted from the cache until the reader is closed; `quota` minds the cache's limit.
    """
    directory = cache_directory or paths.cache_directory()
    mirrors = _mirrored(resolved.remote.sources(), rate_limit)
    manifest = resolved.manifest
    packed, packs = _with_packs(resolved, mirrors, directory, rate_limit)
    source = _cached(
        packed, directory, block_memory_bytes=block_memory_bytes, node_memory_bytes=node_memory_bytes, quota=quota
    )
    table = TableView(manifest.geometry, manifest.root)
    held = contextlib.ExitStack()
    held.enter_context(uses.using(directory, manifest))
    name = DEFAULT_NAME if prefetch is None else prefetch.profile
    profile = ProfileWatch(
        directory,
        resolved.manifest_digest,
        table,
        name,
        has=source.has,
        node=lambda node: source.resident(node, NODE_SIZE),
    )
    if prefetch is None:
        if packs.may_help:
            held.callback(PackSearch(packs).close)
        return ImageReader(
            manifest, source, deadline_s=deadline_s, table=table, profile=profile, packs=packed, held=held
        )
    left_alone = LeftAlone(
        table,
        earlier_table(ReceiptBook(resolved.remote.directory), resolved.publisher, resolved.image, manifest),
        lambda node: source.resident(node, NODE_SIZE),
        source.has,
    )
    blocks = ImageBlocks(table, source, lambda: Deadline.after(deadline_s))
    look_ahead = LookAhead(manifest.geometry.block_count, blocks.is_worth, left_alone)
    prefetcher = Prefetcher(
        resolved.manifest_digest,
        manifest,
        source,
        mirrors,
        directory,
        options=prefetch,
        look_ahead=look_ahead,
        table=table,
        early=early,
        rate_limit=rate_limit,
        packs=packs,
        left_alone=left_alone,
    )
    prefetcher.start()
    return ImageReader(
        manifest,
        source,
        deadline_s=deadline_s,
        table=table,
        ahead=look_ahead,
        prefetcher=prefetcher,
        profile=profile,
        packs=packed,
        held=held,
    )


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source for all of an image, and the packs that it uses."""

    source: CachedSource
    packs: PackSource

    def close(self) -> None:
        """Let go of both."""
        self.source.close()


def open_whole(
    resolved: Resolved,
    cache_directory: Path | None = None,
    *,
    rate_limit: RateLimit | None = None,
    quota: Quota | None = None,
    patience_s: float = LISTING_S,
) -> OpenedSource:
    """Verified blocks of an image of which all is wanted; the delta packs that help are in use when this returns."""
    directory = cache_directory or paths.cache_directory()
    mirrors = _mirrored(resolved.remote.sources(), rate_limit)
    packed, packs = _with_packs(resolved, mirrors, directory, rate_limit, wants_all=True)
    source = _cached(packed, directory, quota=quota)
    if packs.may_help:
        listing = listing_of(resolved, directory)
        if listing is not None:
            packs.use(listing, Deadline.after(patience_s))
    return OpenedSource(source, packed)


def listing_of(resolved: Resolved, cache_directory: Path | None = None) -> Listing | None:
    """Which profiles and bundles there are for an image; None where nobody can be asked and nothing is remembered."""
    directory = cache_directory or paths.cache_directory()
    path = accelerators.listing_path(resolved.manifest_digest)
    lacking = 0
    sources = resolved.remote.sources()
    for url in sources:
        with contextlib.closing(HttpClient(url)) as client:
            try:
                raw = client.get(path, accelerators.MAX_LISTING_BYTES, Deadline.after(LISTING_S))
                return accelerators.parse_listing(raw)
            except NotServedError:
                lacking += 1  # a mirror may lack what the next one has
            except (TransportError, DocumentRefusedError):
                continue
    if lacking == len(sources):
        return Listing(resolved.manifest_digest, ())
    with contextlib.suppress(OscircError):
        kept = read_bytes(listing_file(directory, resolved.manifest_digest), accelerators.MAX_LISTING_BYTES)
        return None if kept is None else accelerators.parse_listing(kept)
    return None


def start_early(
    reference: Reference, options: PrefetchOptions, remotes: Remotes, cache_directory: Path | None = None
) -> EarlyBundle | None:
    """Ask for the bundle that a channel's hint names, beside the refresh; None where there is no hint for it."""
    if not options.bundles or not reference.channel:
        return None

    def where() -> Place:
        """The remote's mirrors, as far as it is known without asking anybody which remote is meant."""
        if reference.remote:
            remote = remotes.load(reference.remote)
        else:
            known = remotes.list()
            only = known[0] if len(known) == 1 else None
            remote = only or remotes.find_publisher(reference.publisher, refresh=lambda _remote: None)
        receipts = ReceiptBook(remote.directory).of(reference.publisher, reference.image)
        return Place(remote.sources(), frozenset(receipt.manifest for receipt in receipts))

    return EarlyBundle(
        where,
        reference.publisher,
        reference.image,
        reference.channel,
        options.profile,
        cache_directory or paths.cache_directory(),
    )


def _mirrored(urls: Sequence[str], rate_limit: RateLimit | None = None) -> MirroredSource:
    return MirroredSource([HttpFrameSource(url, rate_limit=rate_limit) for url in urls])


def _with_packs(
    resolved: Resolved,
    mirrors: MirroredSource,
    directory: Path,
    rate_limit: RateLimit | None,
    *,
    wants_all: bool = False,
) -> tuple[PackSource, Packs]:
    """The mirrors behind the delta packs of an image, which are still to be found."""
    ranges = BundleMirrors(mirrors, rate_limit)
    packed = PackSource(mirrors, ranges, LocalStore(make_directory(directory) / STORE_DIRECTORY), wants_all=wants_all)
    known = known_manifests(resolved.remote, directory)
    return packed, Packs(resolved.manifest_digest, resolved.manifest, packed, ranges, directory, known)


def _cached(
    inner: MirroredSource | PackSource,
    directory: Path,
    *,
    block_memory_bytes: int = BLOCK_MEMORY_BYTES,
    node_memory_bytes: int = NODE_MEMORY_BYTES,
    quota: Quota | None = None,
) -> CachedSource:
    return CachedSource(
        inner,
        make_directory(directory),
        block_memory_bytes=block_memory_bytes,
        node_memory_bytes=node_memory_bytes,
        window=inner.window,
        quota=quota,
        cost=inner.cost if isinstance(inner, PackSource) else lambda _digest, _raw_size: None,
    )
