"""A driver process for tests that serves an image with the real reader; a directory plays the repository.

python image_driver.py MOUNTPOINT {"origin", "cache", "root", "disk_size", "block_size", "data_blocks", "options"}
"""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from oscirc_blockstore.digests import parse_hex
from oscirc_blockstore.errors import UnreachableError
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableRoot
from oscirc_fusedriver.mounting import mount
from oscirc_fusedriver.readers import MountDescription, MountOptions, PreparedImage
from oscirc_remote.cache import CachedSource
from oscirc_remote.image import ImageReader


class DirectorySource:
    """What the directory has not is unreachable."""

    def __init__(self, directory):
        self.store = LocalStore(Path(directory))

    def fetch(self, digest, raw_size, deadline):
        raw = self.store.load(digest, raw_size)
        if raw is None:
            raise UnreachableError("the repository is away")
        return raw

    def mirror_status(self):
        return ()

    def close(self):
        pass


def main():
    script = json.loads(sys.argv[2])
    logging.basicConfig(level=logging.INFO)

    def prepare():
        geometry = Geometry(script["disk_size"], script["block_size"])
        root = TableRoot(parse_hex(script["root"]), geometry.depth)
        manifest = Manifest("alice", "disk", geometry, root, script["data_blocks"], SystemFacts())
        reader = ImageReader(manifest, CachedSource(DirectorySource(script["origin"]), Path(script["cache"])))
        described = MountDescription("test", "test:alice/disk", "ab" * 32, "alice/disk", "1")
        return PreparedImage(reader, described, geometry.block_size)

    mount(
        prepare,
        Path(sys.argv[1]),
        foreground=True,
        options=MountOptions(**script.get("options", {})),
        on_ready=lambda record: print(json.dumps({"ready": asdict(record)}), flush=True),
    )


if __name__ == "__main__":
    main()
