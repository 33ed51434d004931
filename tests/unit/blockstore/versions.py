"""Small versions of a disk in memory, for tests of what lies between two versions."""

from oscirc_blockstore.delta_making import Version
from oscirc_blockstore.digests import ZERO_DIGEST, block_digest, digest_of
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableBuilder

BLOCK = 65536


class Store:
    """Blocks and nodes by digest, and how often each was loaded."""

    def __init__(self):
        self.held, self.loads = {}, {}

    def version(self, blocks, *, block_size=BLOCK, disk_size=None, image="disk"):
        """A version whose blocks are these bytes, by position (a list, or a mapping for a sparse disk)."""
        places = dict(enumerate(blocks)) if isinstance(blocks, list) else blocks
        geometry = Geometry(disk_size or (max(places) + 1) * block_size, block_size)
        table = TableBuilder(geometry, self.held.__setitem__)
        count = 0
        for position, raw in sorted(places.items()):
            digest = block_digest(raw)
            if digest != ZERO_DIGEST:
                self.held[digest] = raw
                table.add(position, digest)
                count += 1
        manifest = Manifest("alice", image, geometry, table.finish(), count, SystemFacts())
        return Version(digest_of(manifest.serialise()), manifest)

    def load(self, digest, raw_size):
        self.loads[digest] = self.loads.get(digest, 0) + 1
        raw = self.held[digest]
        assert len(raw) == raw_size
        return raw

    def node(self, digest):
        return self.load(digest, 32768)
