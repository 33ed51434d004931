"""Block lengths of released versions: made by the server, which alone knows which frame of each digest it keeps.

Made after a release has taken force, beside the answer, and at the start where one is missing (`make_missing`). A
stored frame is never overwritten, so a file once made stays right and is never made again. A version whose file
cannot be made is released all the same: clients then say what an update costs in blocks instead of bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import and_, select
from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore import lengths
from oscirc_blockstore.accelerators import LENGTHS, Accelerator
from oscirc_blockstore.digests import Digest, block_path, digest_of
from oscirc_blockstore.errors import NotFoundError, OscircError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.manifest import parse as parse_manifest
from oscirc_blockstore.table import NODE_SIZE, contents
from oscirc_server.installation import Installation
from oscirc_server.models import AcceleratorRow, ManifestRow
from oscirc_server.services import accelerators, blocks

_log = logging.getLogger(__name__)


def make(installation: Installation, manifest: Digest) -> bool:
    """List the block lengths of a released disk, unless they are listed; False, and logged, where that failed."""
    try:
        _make(installation, manifest)
    except (OscircError, SQLAlchemyError) as error:
        _log.error("block lengths were not made", extra={"manifest": manifest.hex(), "error": str(error)})
        return False
    return True


def make_missing(installation: Installation, *, stopped: Callable[[], bool] = lambda: False) -> int:
    """At the start: those of every disk that has none; how many were made."""
    listed = and_(AcceleratorRow.manifest == ManifestRow.digest, AcceleratorRow.kind == LENGTHS)
    query = select(ManifestRow.digest).outerjoin(AcceleratorRow, listed).where(AcceleratorRow.manifest.is_(None))
    with installation.database.read() as session:
        missing = list(session.scalars(query))
    made = 0
    for digest in missing:
        if stopped():
            break
        made += make(installation, Digest(digest))
    return made


def _make(installation: Installation, digest: Digest) -> None:
    with installation.database.read() as session:
        row = session.get_one(ManifestRow, digest)
        if session.get(AcceleratorRow, (digest, LENGTHS, lengths.NAME)) is not None:
            return
        manifest = parse_manifest(row.raw)

    def load(node: Digest) -> bytes:
        frame = installation.storage.get(block_path(node), max_frame_bytes(NODE_SIZE))
        if frame is None:
            raise NotFoundError(f"the node {node.hex()} is not in the store")
        return decode_verified(frame, NODE_SIZE, node)

    table = contents(manifest.geometry, manifest.root, load)
    with installation.database.read() as session:
        stored = blocks.stored(session, [*table.nodes, *table.blocks])
    if len(stored) < len(table.nodes) + len(table.blocks):
        raise NotFoundError("blocks that the table names are not in the store")
    known = {block: facts.stored_length for block, facts in stored.items()}
    raw = lengths.build(digest, manifest.geometry, manifest.root, load, known)
    accelerators.keep_lengths(
        installation, manifest, digest, Accelerator(LENGTHS, lengths.NAME, digest_of(raw), len(raw)), raw
    )
