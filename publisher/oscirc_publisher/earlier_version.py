"""What the version before has where it stands: blocks and nodes that a server need not be asked about.

Most of an update is what the version before it has at the same place. That version's table says so: signed, a few
kilobytes for each gigabyte, fetched a node at a time as far as the disk has data there. What stands in it as it stands
on the disk, the server has, since it released it; only the rest is asked about.

- This is a hint, never a decision: the disk is read and hashed as ever, and a release is refused where anything is
  missing after all (a collection may have been there), upon which everything is asked about.
- What is served is believed by its digest only. A table that cannot be had, or is not sound, costs the questions that
  it would have saved and is not tried again.
- Memory: a few dozen nodes, and the digests of those that were met.

Safe for threads: who needs a node that another fetches waits for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from oscirc_blockstore.digests import ZERO_DIGEST, Digest, block_path
from oscirc_blockstore.errors import OscircError, TableRefusedError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, manifest_path, parse_verified
from oscirc_blockstore.table import (
    NODE_SIZE,
    Geometry,
    TableRoot,
    check_node,
    check_root,
    entry,
    positions_below,
)

MOST_NODES = 64
Fetch = Callable[[str, int], bytes]
"""A file of the repository's static tree by its path, at most so many bytes long; `RestClient.fetch`."""


class EarlierVersion:
    """The table of a released version, loaded as it is needed."""

    def __init__(self, fetch: Fetch, manifest: Digest, block_size: int) -> None:
        self._fetch = fetch
        self._manifest = manifest
        self._block_size = block_size
        self._table: tuple[Geometry, TableRoot] | None = None
        self._nodes: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._met: set[Digest] = set()
        self._useless = False
        self._lock = threading.Lock()

    def standing(self, blocks: Iterable[tuple[int, Digest]]) -> set[Digest]:
        """Of these blocks (position, digest) those that stand there in the earlier version, too."""
        with self._lock:
            if self._useless:
                return set()
            try:
                geometry, root = self._table = self._table or self._load_table()
                return {digest for position, digest in blocks if self._at(geometry, root, position) == digest}
            except OscircError:
                self._useless = True
                return set()

    def nodes(self, digests: Iterable[Digest]) -> set[Digest]:
        """Of these nodes those that were met in the earlier version's table."""
        with self._lock:
            return self._met.intersection(digests)

    def _load_table(self) -> tuple[Geometry, TableRoot]:
        manifest = parse_verified(self._fetch(manifest_path(self._manifest), MAX_MANIFEST_BYTES), self._manifest)
        check_root(manifest.geometry, manifest.root)
        if manifest.geometry.block_size != self._block_size:
            raise TableRefusedError("the earlier version has blocks of another size: none of them stands here")
        return manifest.geometry, manifest.root

    def _at(self, geometry: Geometry, root: TableRoot, position: int) -> Digest:
        """The digest at a position; the zero digest beyond the end of what was a smaller disk."""
        if position >= geometry.block_count:
            return ZERO_DIGEST
        digest = root.digest
        for level in range(root.depth - 1, -1, -1):
            if digest == ZERO_DIGEST:
                break
            index, within = divmod(position, positions_below(level + 1))
            digest = entry(self._node(geometry, level, index, digest), within // positions_below(level))
        return digest

    def _node(self, geometry: Geometry, level: int, index: int, digest: Digest) -> bytes:
        place = (level, index)
        node = self._nodes.get(place)
        if node is None:
            frame = self._fetch(block_path(digest), max_frame_bytes(NODE_SIZE))
            node = check_node(decode_verified(frame, NODE_SIZE, digest), geometry, level, index)
            self._met.add(digest)
            while len(self._nodes) >= MOST_NODES:
                self._nodes.popitem(last=False)
            self._nodes[place] = node
        self._nodes.move_to_end(place)
        return node
