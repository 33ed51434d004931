"""Which delta packs are of use on this machine, and their indexes: kept in the cache, fetched where they are not.

A pack helps who has blocks of the version that it starts from. Which versions those may be is known here: images that
are or were in use (`uses`), pinned ones, receipts. A listing is a stranger's word: at most twice `MOST_PACKS` indexes
are fetched for it, `MOST_PACKS` kept in memory, none of more records than the image has blocks or of more bytes than
their number allows, and what they say counts only where a block hashes to what the table names.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from oscirc_blockstore import accelerators, delta
from oscirc_blockstore.accelerators import Accelerator, Listing
from oscirc_blockstore.bundle import bounds
from oscirc_blockstore.delta import DeltaIndex
from oscirc_blockstore.digests import Digest, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError, LocalError, OscircError
from oscirc_blockstore.manifest import Manifest
from oscirc_remote import uses
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.deadlines import Deadline
from oscirc_remote.local_files import read_bytes, write_atomically
from oscirc_remote.pack_source import MOST_PACKS, PackSource
from oscirc_remote.pins import Pins
from oscirc_remote.readiness import index_file, keep_listing
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.remotes import Remote

log = logging.getLogger(__name__)

INDEX_BYTES, INDEX_BYTES_OF_AN_ENTRY = 1 << 20, 4096


def known_manifests(remote: Remote, cache_directory: Path) -> frozenset[Digest]:
    """The manifests of which this machine may have blocks."""
    found = {receipt.manifest for receipt in ReceiptBook(remote.directory).all()}
    with contextlib.suppress(OscircError):
        found.update(pin.digest for pin in Pins().list())
    with contextlib.suppress(OSError):
        for path in (cache_directory / uses.DIRECTORY).iterdir():
            with contextlib.suppress(DocumentRefusedError):
                found.add(parse_hex(path.name))
    return frozenset(found)


class Packs:
    """Finds the packs of one image and has `source` use them. One thread at a time."""

    def __init__(
        self,
        manifest_digest: Digest,
        manifest: Manifest,
        source: PackSource,
        mirrors: BundleMirrors,
        cache_directory: Path,
        known: Iterable[Digest],
    ) -> None:
        self._manifest_digest, self._manifest = manifest_digest, manifest
        self._source, self._mirrors = source, mirrors
        self._cache_directory = cache_directory
        self._bases = {delta.name_for(digest): digest for digest in known if digest != manifest_digest}

    @property
    def may_help(self) -> bool:
        """Whether a listing is worth asking for: this machine knows another disk than this."""
        return bool(self._bases)

    def find(self, deadline: Deadline) -> None:
        """Ask for the listing and use what helps; who keeps the listing finds its packs' indexes kept (`cache gc`)."""

        def judged(raw: bytes) -> Listing:
            listing = accelerators.parse_listing(raw)
            if listing.manifest != self._manifest_digest:
                raise DocumentRefusedError("a listing of another disk was served")
            return listing

        path = accelerators.listing_path(self._manifest_digest)
        listing = self._mirrors.get(path, accelerators.MAX_LISTING_BYTES, deadline, judged)
        if listing is not None:
            keep_listing(self._cache_directory, listing.serialise(), self._manifest_digest)
            self.use(listing, deadline)

    def use(self, listing: Listing, deadline: Deadline) -> None:
        """Use the listed packs that start from what is known here; what cannot be had or is wrong is passed over."""
        listed = [each for each in listing.accelerators if each.kind == accelerators.DELTA and each.name in self._bases]
        judged: list[tuple[Accelerator, DeltaIndex]] = []
        for accelerator in listed[: 2 * MOST_PACKS]:
            if self._source.uses(accelerator) or self._source.is_full:
                continue
            try:
                judged.append((accelerator, self._index(accelerator, deadline)))
            except IntegrityError as error:
                self._source.refuse()
                log.info("a delta pack was refused: %s", error)
            except OscircError as error:
                log.info("a delta pack is of no use: %s", error)
            judged.sort(key=lambda pair: -self._source.worth(pair[1]))
            del judged[MOST_PACKS:]  # one index may take much memory
        for accelerator, index in judged:
            self._source.use(accelerator, index, self._forgetting(accelerator))

    def _forgetting(self, accelerator: Accelerator) -> Callable[[], None]:
        """What takes a kept index away: the next use asks for it anew, since another mirror's may be right."""
        place = index_file(self._cache_directory, accelerator.sha256)

        def forget() -> None:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)

        return forget

    def _index(self, accelerator: Accelerator, deadline: Deadline) -> DeltaIndex:
        place = index_file(self._cache_directory, accelerator.sha256)
        kept = read_bytes(place, delta.MAX_INDEX_BYTES)
        if kept is not None:
            with contextlib.suppress(IntegrityError):
                return self._judged(accelerator, kept)
        if not delta.HEAD_SIZE < accelerator.index_length <= self._most_index_bytes():
            raise DocumentRefusedError("a delta pack is listed with an index that none can have")
        raw = self._mirrors.get_range(accelerator, 0, accelerator.index_length, deadline)
        index = self._judged(accelerator, raw)
        with contextlib.suppress(LocalError):
            write_atomically(place, raw, synced=False)
        return index

    def _most_index_bytes(self) -> int:
        """What the index of a pack to this disk may have: several times what the most fragmented one takes."""
        entries = bounds(self._manifest.geometry, self._manifest.data_blocks).entries
        return min(delta.MAX_INDEX_BYTES, INDEX_BYTES + INDEX_BYTES_OF_AN_ENTRY * entries)

    def _judged(self, accelerator: Accelerator, raw: bytes) -> DeltaIndex:
        geometry = self._manifest.geometry
        index = delta.parse_index(raw, bounds(geometry, self._manifest.data_blocks).entries)
        if index.manifest != self._manifest_digest or index.block_size != geometry.block_size:
            raise DocumentRefusedError("the delta pack was made for another disk")
        if index.base != self._bases[accelerator.name] or index.length != accelerator.length:
            raise DocumentRefusedError("the delta pack is not as it was listed")
        return index
