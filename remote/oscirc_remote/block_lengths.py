"""What each block of a version costs to fetch, as its server lists it: fetched once, kept beside what else is known.

The file (`oscirc_blockstore.lengths`) is signed by nobody. It is bounded, compared with the digest that the listing
states and with the table where it is used, and what it says is only ever shown: how many bytes an update will move.
Where nobody has it, or it is not what it should be, costs are estimates.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from oscirc_blockstore import lengths
from oscirc_blockstore.accelerators import LENGTHS, Accelerator, Listing
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, OscircError, TransportError
from oscirc_blockstore.lengths import BlockLengths
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import LoadNode
from oscirc_remote import paths
from oscirc_remote.cache_layout import ACCELERATORS_DIRECTORY
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_client import HttpClient
from oscirc_remote.local_files import read_bytes, write_atomically
from oscirc_remote.resolving import Resolved
from oscirc_remote.update_cost import BlockLength

FETCH_S = 30.0
log = logging.getLogger(__name__)


def lengths_file(cache_directory: Path, sha256: Digest) -> Path:
    """Where a file of block lengths is kept."""
    return cache_directory / ACCELERATORS_DIRECTORY / f"{sha256.hex()}.lengths"


def block_lengths(
    resolved: Resolved, listing: Listing | None, cache_directory: Path | None = None
) -> BlockLengths | None:
    """The block lengths that are listed for an image, kept or fetched; None where there are none to be had."""
    listed = None if listing is None else listing.find(LENGTHS, lengths.NAME)
    if listed is None or listed.length > lengths.MAX_FILE_BYTES:
        return None
    place = lengths_file(cache_directory or paths.cache_directory(), listed.sha256)
    with contextlib.suppress(OscircError):
        kept = read_bytes(place, lengths.MAX_FILE_BYTES)
        if kept is not None:
            return _judged(resolved, listed, kept)
    for url in resolved.remote.sources():
        with contextlib.closing(HttpClient(url)) as client:
            try:
                raw = client.get(listed.path, listed.length, Deadline.after(FETCH_S))
                found = _judged(resolved, listed, raw)
            except (TransportError, DocumentRefusedError) as error:
                log.info("block lengths from %s are of no use: %s", url, error)
                continue
        with contextlib.suppress(LocalError):
            write_atomically(place, raw, synced=False)
        return found
    return None


def known_lengths(
    resolved: Resolved, listing: Listing | None, load: LoadNode, cache_directory: Path | None = None
) -> BlockLength:
    """What is known of what blocks cost, as `update_cost` asks it: nothing where there is no file that is right."""
    found = block_lengths(resolved, listing, cache_directory)
    if found is not None:
        with contextlib.suppress(DocumentRefusedError):
            return by_digest(found, resolved.manifest, load)
    return lambda _digest: None


def _judged(resolved: Resolved, listed: Accelerator, raw: bytes) -> BlockLengths:
    try:
        verify(raw, listed.sha256)
    except OscircError:
        raise DocumentRefusedError("the block lengths are not the file that was listed") from None
    found = lengths.parse(raw, resolved.manifest.geometry)
    if found.manifest != resolved.manifest_digest:
        raise DocumentRefusedError("the block lengths are those of another disk")
    return found


def by_digest(found: BlockLengths, manifest: Manifest, load: LoadNode) -> BlockLength:
    """What the file says of a digest, a block's or a node's; loads the whole table, and raises what that does.

    `DocumentRefusedError` where the file is that of another table.
    """
    known: dict[Digest, int] = {}
    levels = lengths.node_order(manifest.geometry, manifest.root, load)
    if [len(level) for level in levels] != [len(sizes) for sizes in found.nodes]:
        raise DocumentRefusedError("the block lengths are those of another table")
    for digest, number in levels[-1].items():
        known.update(found.of_leaf(number, load(digest)))
    for level, sizes in zip(levels, found.nodes, strict=True):
        known.update(zip(level, sizes, strict=True))
    return known.get
