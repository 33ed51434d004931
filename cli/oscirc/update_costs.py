"""What a version would cost to fetch from what is here, before it is fetched (`oscirc_remote.update_cost`).

Fetched for this are the nodes of its table that are not here, from delta packs or whole (32 KiB for each 256 MiB of
data that differ), and the file that says what each block costs, where the server has one. Blocks are not.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from oscirc.output import human_bytes
from oscirc_blockstore.table import NODE_SIZE

if TYPE_CHECKING:
    from oscirc_blockstore.digests import Digest
    from oscirc_remote.resolving import Resolved
    from oscirc_remote.update_cost import UpdateCost

PATIENCE_S = 60.0


def look(resolved: Resolved) -> UpdateCost:
    """What of a version is not here, and what it costs; raises `TransportError` when its table cannot be had."""
    from oscirc_blockstore.lengths import node_order
    from oscirc_remote import paths, uses
    from oscirc_remote.block_lengths import known_lengths
    from oscirc_remote.deadlines import Deadline
    from oscirc_remote.opening import listing_of, open_whole
    from oscirc_remote.pull import PARALLELISM
    from oscirc_remote.update_cost import update_cost

    manifest = resolved.manifest

    def deadline() -> Deadline:
        return Deadline.after(PATIENCE_S)

    with (
        uses.using(paths.cache_directory(), manifest),
        contextlib.closing(open_whole(resolved)) as opened,
    ):
        source = opened.source

        def load_node(digest: Digest) -> bytes:
            return source.fetch(digest, NODE_SIZE, deadline())

        leaves = node_order(manifest.geometry, manifest.root, load_node)[-1]
        for _ in source.fetch_each([leaf for leaf in leaves if not source.has(leaf)], NODE_SIZE, deadline, PARALLELISM):
            pass
        cost = update_cost(manifest, load_node, source.has, opened.packs)
        if cost.is_exact:
            return cost
        length = known_lengths(resolved, listing_of(resolved), load_node)
        return update_cost(manifest, load_node, source.has, opened.packs, length)


def in_words(cost: UpdateCost) -> str:
    """The bytes to fetch, with how sure that is, and what packs save."""
    about = "" if cost.is_exact else "about "
    saved = cost.whole_bytes - cost.pack_bytes
    packs = f" ({human_bytes(cost.whole_bytes)} without delta packs)" if saved else ""
    return f"{about}{human_bytes(cost.pack_bytes)}{packs}"


def facts(cost: UpdateCost) -> dict[str, object]:
    """The same for programs."""
    return {
        "data_blocks": cost.data_blocks,
        "missing_blocks": cost.missing_blocks,
        "bytes_to_fetch": cost.pack_bytes,
        "bytes_without_packs": cost.whole_bytes,
        "bytes_are_exact": cost.is_exact,
    }
