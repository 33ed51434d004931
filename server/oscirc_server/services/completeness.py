"""Whether everything that a manifest's table names is in the store: asked before a version may be released.

Nodes are loaded and checked, blocks are looked up (their bytes were judged when they came). A node that is damaged
on the server's own disk is forgotten, so that the publisher's next attempt uploads it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, FrameRefusedError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server.errors import BlocksBeingDeletedError, MissingBlocksError
from oscirc_server.installation import Installation
from oscirc_server.services import blocks, drafts
from oscirc_server.services.blocks import StoredBlock

_CLAIMED_AT_ONCE = 20_000  # a transaction of some 0.2 s

_log = logging.getLogger(__name__)
AGAIN = "publish again: what is missing will be uploaded"


@dataclass(frozen=True, slots=True)
class Completeness:
    """The bytes of all frames, the digests whose files a power cut could still take, and what each digest holds."""

    stored_bytes: int
    staged: tuple[Digest, ...]
    sizes: Mapping[Digest, int]
    is_synced: bool = False


class Remembered:
    """What was found complete by a release that then lost a race for the role's next version, by draft.

    Who lost asks again at once, and would lose the next race too if all was walked and synced anew. The leases hold
    meanwhile. Each is given once, within a minute. Safe for threads.
    """

    KEEP_S = 60.0
    MOST = 8

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, Digest], tuple[float, Completeness]] = {}

    def take(self, draft_id: str, manifest: Digest) -> Completeness | None:
        """What was remembered, and is not any more."""
        with self._lock:
            at, found = self._found.pop((draft_id, manifest), (0.0, None))
        return found if time.monotonic() - at < self.KEEP_S else None

    def put(self, draft_id: str, manifest: Digest, found: Completeness) -> None:
        """Remember it; the oldest makes room."""
        with self._lock:
            self._found[(draft_id, manifest)] = (time.monotonic(), found)
            while len(self._found) > self.MOST:
                del self._found[next(iter(self._found))]


def check_complete(installation: Installation, manifest: Manifest, draft_id: str) -> Completeness:
    """Lease it all to the draft, and say what it is.

    Raises `MissingBlocksError`, `TableRefusedError` or `DocumentRefusedError` unless the table is sound and here, and
    `BlocksBeingDeletedError` where it will not be.
    """

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
    present = _claimed(installation, list(wanted), draft_id)
    missing = sum(1 for digest, size in wanted.items() if digest not in present or present[digest].raw_size != size)
    if missing:
        raise MissingBlocksError(f"{missing} blocks that the table names are not here", missing=missing, hint=AGAIN)
    staged = tuple(digest for digest, block in present.items() if block.staged)
    return Completeness(sum(block.stored_length for block in present.values()), staged, wanted)


def _claimed(installation: Installation, digests: list[Digest], draft_id: str) -> dict[Digest, StoredBlock]:
    """Leased to the draft, so that they are here when it is released; it may never have asked about them."""
    present: dict[Digest, StoredBlock] = {}
    for start in range(0, len(digests), _CLAIMED_AT_ONCE):
        with installation.database.write(shared=True) as session:
            drafts.find_open(session, draft_id)
            asked = digests[start : start + _CLAIMED_AT_ONCE]
            claimed = blocks.claim(session, draft_id, asked, durable=installation.storage.durable_on_put)
            drafts.touch(installation, session, draft_id)
        if claimed.deleting:
            raise BlocksBeingDeletedError(f"{len(claimed.deleting)} blocks of the version are being deleted")
        present.update(claimed.present)
    return present
