"""What lies between two versions: blocks, nodes and bytes, from what is here and from all of the old version.

Fetched for this are nodes of the two tables and the small files that say what blocks cost (block lengths, the indexes
of delta packs); no block. What the old version has is asked of its table, what this machine has of its cache: these are
two questions with two answers. Bytes are those of bodies, as in `update_cost`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import delta
from oscirc_blockstore.accelerators import DELTA, Listing
from oscirc_blockstore.bundle import bounds
from oscirc_blockstore.delta import DeltaIndex
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.lengths import node_order
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import paths
from oscirc_remote.block_lengths import known_lengths
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.cache import CachedSource
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.local_files import read_bytes
from oscirc_remote.mirrors import MirroredSource
from oscirc_remote.opening import OpenedSource, listing_of
from oscirc_remote.readiness import index_file, keep_listing
from oscirc_remote.resolving import Resolved
from oscirc_remote.table_difference import Nodes, Sink, TableDifference, compare
from oscirc_remote.update_cost import GUESSED_SHARE, BlockLength, UpdateCost, update_cost

PATIENCE_S = 60.0
PARALLELISM = 16
MAX_PACK_INDEX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FullCost:
    """From all of the old version to all of the new one: distinct blocks and nodes that the old one lacks.

    `pack_bytes` is with the delta pack made for just this pair, its index included; None where there is none.
    """

    blocks: int
    nodes: int
    block_bytes: int
    node_bytes: int
    pack_bytes: int | None
    estimated: int


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """`here` is from what this machine has; `fetched_nodes` were fetched to find that out, and are here now.

    `length` is what is known of what single blocks of the new version cost.
    """

    table: TableDifference
    full: FullCost
    here: UpdateCost
    fetched_nodes: int
    length: BlockLength


def difference(
    old: Resolved,
    new: Resolved,
    opened_old: OpenedSource,
    opened_new: OpenedSource,
    sink: Sink = lambda _at, _change, _count: None,
    cache_directory: Path | None = None,
) -> VersionDifference:
    """Compare two versions; `TransportError` where a node cannot be had, `UsageError` for blocks of two sizes."""
    directory = cache_directory or paths.cache_directory()
    old_nodes, new_nodes = _Nodes(opened_old.source), _Nodes(opened_new.source)
    listing = listing_of(new, directory)
    if listing is not None and listing.accelerators:
        keep_listing(directory, listing.serialise(), new.manifest_digest)
    # all of the new table first, many nodes at once: what it costs from here is asked of each of its blocks
    new_nodes.prepare(node_order(new.manifest.geometry, new.manifest.root, new_nodes.load)[-1])
    length = known_lengths(new, listing, new_nodes.load, directory)

    def prepare(wanted_old: Sequence[Digest], wanted_new: Sequence[Digest]) -> None:
        old_nodes.prepare(wanted_old)
        new_nodes.prepare(wanted_new)

    table = compare(
        old.manifest, new.manifest, Nodes(old_nodes.load, new_nodes.load, new_nodes.resident, prepare), sink
    )
    here = update_cost(new.manifest, new_nodes.load, opened_new.source.has, opened_new.packs, length)
    index = _pack_index(new, listing, old.manifest_digest, directory)
    return VersionDifference(
        table=table,
        full=_full(new.manifest, table, length, index),
        here=here,
        fetched_nodes=len(old_nodes.fetched | new_nodes.fetched),
        length=length,
    )


class _Nodes:
    """The nodes of one version, through the cache; counts those that were not here."""

    def __init__(self, source: CachedSource) -> None:
        self._source = source
        self.fetched: set[Digest] = set()

    def load(self, digest: Digest) -> bytes:
        self._note(digest)
        return self._source.fetch(digest, NODE_SIZE, self._deadline())

    def resident(self, digest: Digest) -> bytes | None:
        return self._source.resident(digest, NODE_SIZE)

    def prepare(self, digests: Iterable[Digest]) -> None:
        wanted = [digest for digest in dict.fromkeys(digests) if self._note(digest)]
        for _ in self._source.fetch_each(wanted, NODE_SIZE, self._deadline, PARALLELISM):
            pass

    def _note(self, digest: Digest) -> bool:
        if digest in self.fetched or self._source.has(digest):
            return False
        self.fetched.add(digest)
        return True

    @staticmethod
    def _deadline() -> Deadline:
        return Deadline.after(PATIENCE_S)


def _pack_index(new: Resolved, listing: Listing | None, base: Digest, directory: Path) -> DeltaIndex | None:
    """The index of the pack from this very version: kept, if the version is in use here, else fetched."""
    listed = None if listing is None else listing.find(DELTA, delta.name_for(base))
    if listed is None or not delta.HEAD_SIZE < listed.index_length <= MAX_PACK_INDEX_BYTES:
        return None
    with contextlib.suppress(OscircError):
        raw = read_bytes(index_file(directory, listed.sha256), delta.MAX_INDEX_BYTES)
        if raw is None:
            mirrors = MirroredSource([HttpFrameSource(url) for url in new.remote.sources()])
            with contextlib.closing(mirrors), contextlib.closing(BundleMirrors(mirrors)) as ranges:
                raw = ranges.get_range(listed, 0, listed.index_length, Deadline.after(PATIENCE_S))
        index = delta.parse_index(raw, bounds(new.manifest.geometry, new.manifest.data_blocks).entries)
        if (index.manifest, index.base) == (new.manifest_digest, base):
            return index
    return None


def _full(new: Manifest, table: TableDifference, length: BlockLength, index: DeltaIndex | None) -> FullCost:
    block_size, known, whole, packed = new.geometry.block_size, 0, 0, 0
    for digest in table.fresh_blocks:
        record = None if index is None else index.records.get(digest)
        stated = length(digest)
        if stated is None and record is not None:
            stated = record.whole_length
        if stated is None:
            continue
        known += 1
        whole += stated
        packed += min(stated, record.length) if record is not None and record.is_rebuildable else stated
    unknown = len(table.fresh_blocks) - known
    guess = round(unknown * (whole / known if known else GUESSED_SHARE * block_size))
    index_length = 0 if index is None else min((record.offset for record in index.records.values()), default=0)
    return FullCost(
        blocks=len(table.fresh_blocks),
        nodes=len(table.fresh_nodes),
        block_bytes=whole + guess,
        node_bytes=sum(length(digest) or NODE_SIZE for digest in table.fresh_nodes),
        pack_bytes=None if index is None else packed + guess + index_length,
        estimated=unknown,
    )
