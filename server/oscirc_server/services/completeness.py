"""Whether everything that a manifest's table names is in the store: asked before a version may be released.

Nodes are loaded and checked, blocks are looked up (their bytes were judged when they came). A node that is damaged
on the server's own disk is forgotten, so that the publisher's next attempt uploads it again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, FrameRefusedError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server.errors import MissingBlocksError
from oscirc_server.installation import Installation
from oscirc_server.services import blocks

_log = logging.getLogger(__name__)
AGAIN = "publish again: what is missing will be uploaded"


@dataclass(frozen=True, slots=True)
class Completeness:
    """The bytes of all frames, the digests whose files a power cut could still take, and what each digest holds."""

    stored_bytes: int
    staged: tuple[Digest, ...]
    sizes: Mapping[Digest, int]


def check_complete(installation: Installation, manifest: Manifest) -> Completeness:
    """Raise `MissingBlocksError`, `TableRefusedError` or `DocumentRefusedError` unless the table is sound and here."""

    def load(digest: Digest) -> bytes:
        frame = installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
        if frame is None:
            raise MissingBlocksError(f"the node {digest.hex()} is not here", missing=1, hint=AGAIN)
        try:
            return decode_verified(frame, NODE_SIZE, digest)
        except (FrameRefusedError, DigestMismatchError):
            _log.warning("a stored node is damaged", extra={"digest": digest.hex()})
            with installation.database.write() as session:
                blocks.forget(session, digest)
            raise MissingBlocksError(f"the node {digest.hex()} is not here", missing=1, hint=AGAIN) from None

    table = contents(manifest.geometry, manifest.root, load)
    if table.data_blocks != manifest.data_blocks:
        raise DocumentRefusedError(
            f"the manifest states {manifest.data_blocks} blocks of data, its table names {table.data_blocks}"
        )
    wanted = dict.fromkeys(table.nodes, NODE_SIZE) | dict.fromkeys(table.blocks, manifest.geometry.block_size)
    with installation.database.read() as session:
        present = blocks.stored(session, list(wanted))
    missing = sum(1 for digest, size in wanted.items() if digest not in present or present[digest].raw_size != size)
    if missing:
        raise MissingBlocksError(f"{missing} blocks that the table names are not here", missing=missing, hint=AGAIN)
    staged = tuple(digest for digest, block in present.items() if block.staged)
    return Completeness(sum(block.stored_length for block in present.values()), staged, wanted)
