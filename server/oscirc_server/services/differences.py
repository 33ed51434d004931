"""What lies between two versions: blocks by what became of them, where they stand, and the bytes that an update moves.

From all of one version to all of the other, as `oscirc diff` says it of a workstation that has the old one: whole
frames, or for each block the cheaper of its frame and its record where a delta pack for just this pair is listed. Nodes
come from the store; a subtree that both share is not gone through, unless the disk is small enough to know of every
block whether the old version has it somewhere.

Anybody may ask, so time and memory are bounded: versions of many blocks are walked without keeping digests, and the
digests are gathered in a second walk only where they are few enough. Else bytes are estimated by the new version's
mean frame (`exact` is false), and what there was no time for is left out of the map and the positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from oscirc_blockstore import delta
from oscirc_blockstore.accelerators import DELTA, Accelerator
from oscirc_blockstore.bundle import bounds
from oscirc_blockstore.delta import DeltaIndex
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import FANOUT
from oscirc_remote.table_difference import Nodes, TableDifference, compare
from oscirc_server.installation import Installation
from oscirc_server.models import ManifestRow
from oscirc_server.services import accelerators, blocks, versions
from oscirc_server.services.disk_maps import DiskMap, MapMaker, TakesTooLongError

LOOKED_THROUGH_BLOCKS: Final = 1 << 17  # 32 GiB of blocks of the usual size
MOST_DIGESTS: Final = 1 << 19  # in memory at once: some 100 MB
MAX_PACK_INDEX_BYTES: Final = 16 << 20
LIMIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """Positions by what became of them; distinct blocks and nodes that the old version lacks, and their bytes.

    `bytes_with_pack` counts the pack's index (nodes are in it), its records and the frames that are still needed; None
    where no pack for this pair is listed, or there is too much to say. `exact`: nothing was estimated or left out.
    """

    block_size: int
    positions: Mapping[str, int]
    blocks: int
    nodes: int
    block_bytes: int
    node_bytes: int
    bytes_with_pack: int | None
    rebuilt_blocks: int
    exact: bool
    picture: DiskMap

    @property
    def bytes(self) -> int:
        """Of all whole frames, without a pack."""
        return self.block_bytes + self.node_bytes


def pack_of(installation: Installation, old: Digest, new: Digest) -> Accelerator | None:
    """The delta pack for just this pair, if one is listed."""
    with installation.database.read() as session:
        return accelerators.listing(session, new).find(DELTA, delta.name_for(old))


def difference(
    installation: Installation,
    old: tuple[Digest, Manifest],
    new: tuple[Digest, Manifest],
    pack: Accelerator | None,
    *,
    limit_s: float = LIMIT_S,
    now: Callable[[], float] = time.monotonic,
) -> VersionDifference:
    """Compare two versions; `UsageError` for blocks of two sizes."""
    geometry = new[1].geometry
    count = max(geometry.block_count, old[1].geometry.block_count)
    maker = MapMaker(geometry.block_size, count, limit_s=limit_s, now=now)
    load = versions.node_loader(installation)
    looked_through = new[1].data_blocks <= LOOKED_THROUGH_BLOCKS
    nodes = Nodes(load, load, load if looked_through else lambda _digest: None)
    few = old[1].data_blocks + new[1].data_blocks <= MOST_DIGESTS
    whole, found = True, TableDifference()
    try:
        found = compare(old[1], new[1], nodes, maker.add, with_blocks=few)
    except TakesTooLongError:
        whole = False
    picture = maker.finish()
    changed, added, removed, kept = (sum(cell[kind] for cell in picture.cells) for kind in range(4))
    fresh = None
    if whole and few:
        fresh = found.fresh_blocks
    elif whole and min(old[1].data_blocks, FANOUT * len(found.gone_nodes)) + changed + added <= MOST_DIGESTS:
        fresh = compare(old[1], new[1], nodes).fresh_blocks
    counted = _bytes(installation, new, fresh, found, changed + added)
    index = None if fresh is None or pack is None else _pack_index(installation, pack, new[1])
    packed, rebuilt = (None, 0) if index is None else _with_pack(fresh or set(), counted.lengths, index)
    return VersionDifference(
        block_size=geometry.block_size,
        positions={
            "unchanged": max(0, new[1].data_blocks - changed - added) if whole else kept,
            "changed": changed,
            "new": added,
            "removed": removed,
        },
        blocks=counted.blocks,
        nodes=len(found.fresh_nodes),
        block_bytes=counted.block_bytes,
        node_bytes=counted.node_bytes,
        bytes_with_pack=packed,
        rebuilt_blocks=rebuilt,
        exact=fresh is not None,
        picture=picture,
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    blocks: int
    block_bytes: int
    node_bytes: int
    lengths: Mapping[Digest, int]


def _bytes(
    installation: Installation,
    new: tuple[Digest, Manifest],
    fresh: set[Digest] | None,
    found: TableDifference,
    differing: int,
) -> _Counted:
    """What the fresh blocks and nodes cost; without the blocks' digests, as many as differ at the usual length."""
    with installation.database.read() as session:
        known = blocks.stored(session, [*(fresh or ()), *found.fresh_nodes])
        row = None if fresh is not None else session.get(ManifestRow, new[0])
        mean = 0 if row is None else row.stored_bytes // max(1, new[1].data_blocks)
    lengths = {digest: each.stored_length for digest, each in known.items()}
    node_bytes = sum(lengths.get(digest, 0) for digest in found.fresh_nodes)
    if fresh is None:
        return _Counted(differing, differing * mean, node_bytes, lengths)
    return _Counted(len(fresh), sum(lengths.get(digest, 0) for digest in fresh), node_bytes, lengths)


def _with_pack(fresh: set[Digest], lengths: Mapping[Digest, int], index: DeltaIndex) -> tuple[int, int]:
    """Bytes of the fresh blocks where each comes the cheaper way, with the index; and how many are rebuilt."""
    total = min((record.offset for record in index.records.values()), default=0)
    rebuilt = 0
    for digest in fresh:
        record = index.records.get(digest)
        whole = lengths.get(digest, 0)
        cheaper = record is not None and record.is_rebuildable and record.length < whole
        rebuilt += cheaper
        total += record.length if record is not None and cheaper else whole
    return total, rebuilt


def _pack_index(installation: Installation, listed: Accelerator, manifest: Manifest) -> DeltaIndex | None:
    """The index of a listed pack, if it can be read."""
    if not delta.HEAD_SIZE < listed.index_length <= MAX_PACK_INDEX_BYTES:
        return None
    try:
        raw = installation.storage.get_range(listed.path, 0, listed.index_length)
        return None if raw is None else delta.parse_index(raw, bounds(manifest.geometry, manifest.data_blocks).entries)
    except OscircError:
        return None
