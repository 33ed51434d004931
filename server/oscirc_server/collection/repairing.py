"""Good frames for bad ones, from mirrors of this repository; nobody is believed, every frame is decoded and hashed.

A frame that replaces a damaged file may differ from it in its bytes, since the block inside is what the digest names.
Replacing needs no lock: the file is good before and after, for whoever reads or uploads it. What cannot be repaired is
*quarantined*: a copy is kept outside the tree, and file and row go by the deletion's own steps, so that readers ask
another source and the next upload of the block is taken.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import update

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import BusyError, TransportError
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_blockstore.table import BLOCK_SIZES
from oscirc_remote.deadlines import Deadline
from oscirc_remote.fetching import HttpFrameSource
from oscirc_server.collection import removing
from oscirc_server.collection.block_files import size_inside
from oscirc_server.installation import Installation
from oscirc_server.locks import COLLECTOR
from oscirc_server.models import BLOCK_DELETING, BlockRow
from oscirc_server.services import blocks

LONGEST_FRAME = max_frame_bytes(max(BLOCK_SIZES))

_FETCH_S = 30.0
_STALL_S = 10.0
_QUARANTINE_WAIT_S = 5.0
_MAX_QUARANTINED = 1000

_log = logging.getLogger(__name__)


class Mirrors:
    """Base URLs to ask in turn."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._sources = [HttpFrameSource(url) for url in urls]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for source in self._sources:
            source.close()

    def frame(self, digest: Digest) -> tuple[bytes, int] | None:
        """A good frame with the size of what is inside, from the first mirror that has one."""
        for source in self._sources:
            try:
                served = source.fetch_frame(digest, LONGEST_FRAME, Deadline.after(_FETCH_S), stall_s=_STALL_S)
            except TransportError as error:
                _log.info("a mirror does not help", extra={"digest": digest.hex(), "error": str(error)})
                continue
            raw_size = size_inside(served.frame, digest)
            if raw_size is not None:
                return served.frame, raw_size
            _log.warning("a mirror has a wrong block", extra={"digest": digest.hex(), "mirror": source.name})
        return None


def repair(installation: Installation, mirrors: Mirrors, digest: Digest) -> bool:
    """Put a good frame where the store has none; False where no mirror has one."""
    found = mirrors.frame(digest)
    if found is None:
        return False
    frame, raw_size = found
    installation.storage.replace(block_path(digest), frame)
    installation.storage.sync()
    row = [(digest, raw_size, len(frame))]
    with installation.database.write() as session:
        blocks.add(session, row, durable=True, now_s=installation.now_s())
        blocks.put_again(session, row, durable=True)
    _log.warning("repaired a block from a mirror", extra={"digest": digest.hex()})
    return True


def quarantine(installation: Installation, digest: Digest) -> None:
    """Take a bad file out of the tree; while a collection is under way only its row goes."""
    raw = installation.storage.get(block_path(digest), LONGEST_FRAME)
    if raw is not None:
        _keep(installation, digest, raw)
    with contextlib.suppress(BusyError), installation.locks.held(COLLECTOR, _QUARANTINE_WAIT_S) as held:
        now_s, begun = installation.now_s(), removing.now_s()
        with installation.database.write(durable=True) as session:
            session.execute(
                update(BlockRow).where(BlockRow.digest == digest).values(state=BLOCK_DELETING, condemned_s=now_s)
            )
            has_row = session.get(BlockRow, digest) is not None
        if has_row:
            removing.remove(installation, held, [digest], now_s, begun)
    with installation.database.write() as session:
        blocks.forget(session, digest)


def _keep(installation: Installation, digest: Digest, raw: bytes) -> None:
    place = installation.layout.root / "quarantine"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if sum(1 for _ in place.iterdir()) < _MAX_QUARANTINED:
            (place / f"{digest.hex()}.zst").write_bytes(raw)
    except OSError as error:
        _log.warning("a damaged block was not kept for a look", extra={"digest": digest.hex(), "error": str(error)})
