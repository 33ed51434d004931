"""What a sync would fetch, told before anything is fetched but metadata, manifests and tables; none of it is kept.

Bytes are exact where the repository lists block lengths; elsewhere a block counts with its size on the disk, which is
the most that it can cost.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from oscirc_blockstore import lengths
from oscirc_blockstore.accelerators import LENGTHS, Listing
from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import IntegrityError, NotServedError, TransportError
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, manifest_path, parse_verified
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.block_lengths import by_digest
from oscirc_remote.table_view import TableView, entries
from oscirc_remote.update_cost import BlockLength
from oscirc_server.mirroring.accelerating import AcceleratorCopier
from oscirc_server.mirroring.directory import MirrorDirectory
from oscirc_server.mirroring.frames import FrameStore
from oscirc_server.mirroring.gathering import Wanted, gather
from oscirc_server.mirroring.selection import Selection
from oscirc_server.mirroring.upstream import DOCUMENT_S, Upstream


@dataclass(slots=True)
class Cost:
    """`block_bytes` of `blocks`, of which `unknown_blocks` count with the most that they can cost."""

    versions: int = 0
    lacking: int = 0
    blocks: int = 0
    block_bytes: int = 0
    unknown_blocks: int = 0
    accelerators: int = 0
    accelerator_bytes: int = 0
    absent: list[str] = field(default_factory=list)


def cost(directory: MirrorDirectory, selection: Selection, *, jobs: int, with_accelerators: bool = True) -> Cost:
    """Ask the sources what there is, and compare it with what is here."""
    with contextlib.closing(Upstream(directory.remote, directory.sources)) as upstream:
        counting = _Counting(directory, upstream)
        wanted = gather(directory, upstream, jobs, keep=False).wanted(selection)
        counting.found.versions = len(wanted)
        for each in wanted:
            try:
                counting.add(each, with_accelerators=with_accelerators)
            except (NotServedError, IntegrityError) as error:
                counting.found.absent.append(f"{each.reference}: {error}")
        return counting.found


class _Counting:
    def __init__(self, directory: MirrorDirectory, upstream: Upstream) -> None:
        self.found = Cost()
        self._directory = directory
        self._upstream = upstream
        self._frames = FrameStore(directory.storage)
        self._files = AcceleratorCopier(directory, upstream)
        self._nodes: dict[Digest, bytes] = {}
        self._counted: set[Digest] = set()

    def add(self, wanted: Wanted, *, with_accelerators: bool) -> None:
        listing = self._files.listing_of(wanted.manifest)
        if listing is not None and with_accelerators:
            self._add_accelerators(listing)
        if self._directory.is_complete(wanted.manifest):
            return
        self.found.lacking += 1
        raw = self._upstream.named(manifest_path(wanted.manifest), wanted.manifest, MAX_MANIFEST_BYTES)
        if raw is None:
            raise NotServedError("no source has its manifest")
        manifest = parse_verified(raw, wanted.manifest)
        lacking = self._lacking(manifest)
        known = self._lengths(wanted.manifest, manifest, listing) if lacking else lambda _digest: None
        for digest, raw_size in lacking.items():
            length = known(digest)
            self.found.blocks += 1
            self.found.unknown_blocks += length is None
            self.found.block_bytes += raw_size if length is None else length

    def _lacking(self, manifest: Manifest) -> dict[Digest, int]:
        """Nodes and blocks that neither are here nor were counted before, with their sizes on the disk."""
        lacking: dict[Digest, int] = {}

        def lacks(digest: Digest, raw_size: int) -> None:
            if digest not in self._counted and not self._frames.has(digest):
                lacking[digest] = raw_size
            self._counted.add(digest)

        def node(digest: Digest) -> bytes:
            lacks(digest, NODE_SIZE)
            return self._node(digest)

        for _, leaf in TableView(manifest.geometry, manifest.root, remembered_nodes=1).leaves(node):
            for digest in entries(leaf):
                lacks(digest, manifest.geometry.block_size)
        return lacking

    def _node(self, digest: Digest) -> bytes:
        if digest not in self._nodes:
            kept = self._frames.load(digest)
            self._nodes[digest] = self._upstream.block(digest, NODE_SIZE, DOCUMENT_S) if kept is None else kept
        return self._nodes[digest]

    def _lengths(self, digest: Digest, manifest: Manifest, listing: Listing | None) -> BlockLength:
        listed = None if listing is None else listing.find(LENGTHS, lengths.NAME)
        with contextlib.suppress(TransportError, IntegrityError):
            if listed is not None and listed.length <= lengths.MAX_FILE_BYTES:
                raw = self._upstream.named(listed.path, listed.sha256, listed.length)
                found = None if raw is None else lengths.parse(raw, manifest.geometry)
                if found is not None and found.manifest == digest:
                    return by_digest(found, manifest, self._node)
        return lambda _digest: None

    def _add_accelerators(self, listing: Listing) -> None:
        for each in listing.accelerators:
            if each.sha256 not in self._counted and self._directory.storage.size(each.path) != each.length:
                self.found.accelerators += 1
                self.found.accelerator_bytes += each.length
            self._counted.add(each.sha256)
