"""What lies between two versions: blocks by what became of them, and the bytes that an update moves.

From all of one version to all of the other, as `oscirc diff` says it of a workstation that has the old one: whole
frames, or for each block the cheaper of its frame and its record where a delta pack for just this pair is listed. Nodes
come from the store; a subtree that both share is not gone through, unless the disk is small enough to know of every
block whether the old version has it somewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore import delta
from oscirc_blockstore.accelerators import DELTA
from oscirc_blockstore.bundle import bounds
from oscirc_blockstore.delta import DeltaIndex
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import OscircError
from oscirc_blockstore.manifest import Manifest
from oscirc_remote.table_difference import Change, Nodes, compare
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators, blocks, versions

LOOKED_THROUGH_BLOCKS = 1 << 17  # 32 GiB of blocks of the usual size
MAX_PACK_INDEX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """Positions by what became of them; distinct blocks and nodes that the old version lacks, and their bytes.

    `bytes_with_pack` counts the pack's index (nodes are in it), its records and the frames that are still needed; None
    where no pack for this pair is listed.
    """

    block_size: int
    positions: Mapping[str, int]
    blocks: int
    nodes: int
    block_bytes: int
    node_bytes: int
    bytes_with_pack: int | None
    rebuilt_blocks: int


def difference(
    installation: Installation, old: tuple[Digest, Manifest], new: tuple[Digest, Manifest]
) -> VersionDifference:
    """Compare two versions; `UsageError` for blocks of two sizes."""
    load = versions.node_loader(installation)
    small = new[1].data_blocks <= LOOKED_THROUGH_BLOCKS
    nodes = Nodes(load, load, load if small else lambda _digest: None)
    found = compare(old[1], new[1], nodes)
    fresh = [*found.fresh_blocks, *found.fresh_nodes]
    with installation.database.read() as session:
        lengths = {digest: known.stored_length for digest, known in blocks.stored(session, fresh).items()}
    block_bytes = sum(lengths.get(digest, 0) for digest in found.fresh_blocks)
    node_bytes = sum(lengths.get(digest, 0) for digest in found.fresh_nodes)
    packed = rebuilt = None
    index = _pack_index(installation, old[0], new)
    if index is not None:
        packed, rebuilt = _with_pack(found.fresh_blocks, lengths, index)
    changed, added = found.positions[Change.CHANGED], found.positions[Change.NEW]
    return VersionDifference(
        block_size=new[1].geometry.block_size,
        positions={
            "unchanged": max(0, new[1].data_blocks - changed - added),
            "changed": changed,
            "new": added,
            "removed": found.positions[Change.REMOVED],
        },
        blocks=len(found.fresh_blocks),
        nodes=len(found.fresh_nodes),
        block_bytes=block_bytes,
        node_bytes=node_bytes,
        bytes_with_pack=packed,
        rebuilt_blocks=rebuilt or 0,
    )


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


def _pack_index(installation: Installation, base: Digest, new: tuple[Digest, Manifest]) -> DeltaIndex | None:
    """The index of the pack for just this pair, if one is listed and can be read."""
    digest, manifest = new
    with installation.database.read() as session:
        listed = accelerators.listing(session, digest).find(DELTA, delta.name_for(base))
    if listed is None or not delta.HEAD_SIZE < listed.index_length <= MAX_PACK_INDEX_BYTES:
        return None
    try:
        raw = installation.storage.get_range(listed.path, 0, listed.index_length)
        return None if raw is None else delta.parse_index(raw, bounds(manifest.geometry, manifest.data_blocks).entries)
    except OscircError:
        return None
