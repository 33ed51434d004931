"""Rows about blocks: which frames the store holds, and which drafts need them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_server.database import chunks, insert_new
from oscirc_server.models import BLOCK_LIVE, BLOCK_STAGED, BlockRow, Lease


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A frame in the store: bytes inside, bytes of the file, and whether a power cut may still take it."""

    raw_size: int
    stored_length: int
    staged: bool


def stored(session: Session, digests: Sequence[Digest]) -> dict[Digest, StoredBlock]:
    """Those of `digests` that the store holds."""
    found: dict[Digest, StoredBlock] = {}
    columns = (BlockRow.digest, BlockRow.raw_size, BlockRow.stored_length, BlockRow.state)
    for chunk in chunks(digests):
        query = select(*columns).where(BlockRow.digest.in_(chunk), BlockRow.state.in_((BLOCK_STAGED, BLOCK_LIVE)))
        for digest, raw_size, stored_length, state in session.execute(query):
            found[Digest(digest)] = StoredBlock(raw_size, stored_length, state == BLOCK_STAGED)
    return found


def add(session: Session, found: Iterable[tuple[Digest, int, int]], *, durable: bool, now_s: int) -> None:
    """Rows for (digest, raw size, stored length) of frames that now stand in the store."""
    state = BLOCK_LIVE if durable else BLOCK_STAGED
    rows = [
        {"digest": digest, "raw_size": raw_size, "stored_length": length, "state": state, "created_s": now_s}
        for digest, raw_size, length in found
    ]
    insert_new(session, BlockRow, rows)


def lease(session: Session, draft_id: str, digests: Iterable[Digest]) -> None:
    """Keep these blocks for as long as the draft lives."""
    insert_new(session, Lease, [{"draft_id": draft_id, "digest": digest} for digest in digests])


def promote(session: Session, digests: Sequence[Digest]) -> None:
    """These have reached the disk: no power cut takes them any more."""
    for chunk in chunks(digests):
        session.execute(
            update(BlockRow)
            .where(BlockRow.digest.in_(chunk), BlockRow.state == BLOCK_STAGED)
            .values(state=BLOCK_LIVE)
            .execution_options(synchronize_session=False)
        )


def forget(session: Session, digest: Digest) -> None:
    """The frame is gone or damaged: the next upload of this block replaces it."""
    session.execute(delete(BlockRow).where(BlockRow.digest == digest))


def forget_staged(session: Session) -> None:
    """After a power cut: what had not been synced is to be uploaded (and then verified where it stands) again."""
    session.execute(delete(BlockRow).where(BlockRow.state == BLOCK_STAGED))
