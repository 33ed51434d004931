"""What it costs to have an image, from what this machine has: counted before any block is fetched.

The table is gone through; its nodes are loaded on the way (made from a delta pack, from the cache, or fetched: they are
few). Of each block that is missing the cost is known exactly where a pack or the block lengths of the version state
it; of the others it is estimated from the mean of those that are known. Costs are bytes of bodies: what HTTP adds
to them (some 300 bytes for each request) is not counted, nor metadata, which is fetched before one can ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.manifest import Manifest
from oscirc_remote.table_view import TableView, entries

GUESSED_SHARE = 0.35  # of a block's bytes, where nothing at all is known: a Debian disk's

BlockLength = Callable[[Digest], int | None]
"""How long the block file of a digest is, None where that is not known."""


class PackCosts(Protocol):
    """The delta packs in use: `pack_source.PackSource`."""

    def cost(self, digest: Digest, raw_size: int) -> int | None:
        """What fetching it will move, as far as packs tell."""

    def whole_length(self, digest: Digest) -> int | None:
        """What its block file costs, as far as packs tell."""


@dataclass(frozen=True, slots=True)
class UpdateCost:
    """Blocks count once each, whatever the number of places where they stand; nodes are here when this is known.

    `whole_bytes` is what the missing blocks cost as block files, `pack_bytes` what they cost with the packs in use:
    `records` of them are then made from old blocks. `estimated` of the missing blocks have a cost that is a guess.
    """

    data_blocks: int
    missing_blocks: int
    block_size: int
    whole_bytes: int
    pack_bytes: int
    records: int
    estimated: int

    @property
    def is_exact(self) -> bool:
        """Whether nothing had to be guessed."""
        return not self.estimated


def update_cost(
    manifest: Manifest,
    load_node: Callable[[Digest], bytes],
    has: Callable[[Digest], bool],
    packs: PackCosts | None = None,
    length: BlockLength = lambda _digest: None,
) -> UpdateCost:
    """Go through the table of `manifest`; raises what `load_node` raises, and `TableRefusedError` for a bad node."""
    missing: dict[Digest, None] = {}
    seen: set[Digest] = set()
    for name, leaf in TableView(manifest.geometry, manifest.root).leaves(load_node, lambda _nodes: None):
        if name not in seen:
            seen.add(name)
            missing.update(dict.fromkeys(digest for digest in entries(leaf) if not has(digest)))
    block_size = manifest.geometry.block_size
    whole, packed, known, records = 0, 0, 0, 0
    for digest in missing:
        stated = length(digest)
        if stated is None and packs is not None:
            stated = packs.whole_length(digest)
        if stated is None:
            continue
        known += 1
        cost = packs.cost(digest, block_size) if packs is not None else None
        whole += stated
        packed += stated if cost is None else min(cost, stated)
        records += cost is not None and cost < stated
    unknown = len(missing) - known
    guess = round(unknown * (whole / known if known else GUESSED_SHARE * block_size))
    return UpdateCost(
        data_blocks=manifest.data_blocks,
        missing_blocks=len(missing),
        block_size=block_size,
        whole_bytes=whole + guess,
        pack_bytes=packed + guess,
        records=records,
        estimated=unknown,
    )
