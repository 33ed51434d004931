"""Rows about blocks: which frames the store holds, which drafts need them, and which are on their way out.

A lease comes before anything that relies on a block: `claim` takes it, revives what was condemned, and says what is
here. The collector's steps ask for leases in their own transactions, which are alone (`Database.write`), so one of the
two is first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_server.database import chunks, insert_new
from oscirc_server.models import BLOCK_CONDEMNED, BLOCK_DELETING, BLOCK_LIVE, BLOCK_STAGED, BlockRow, Lease

HERE = (BLOCK_STAGED, BLOCK_LIVE, BLOCK_CONDEMNED)


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A frame in the store: bytes inside, bytes of the file, and whether a power cut may still take it."""

    raw_size: int
    stored_length: int
    staged: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a draft has leased now, and what it cannot have before it is gone."""

    present: dict[Digest, StoredBlock]
    deleting: frozenset[Digest]


def stored(session: Session, digests: Sequence[Digest]) -> dict[Digest, StoredBlock]:
    """Those of `digests` that the store holds."""
    found: dict[Digest, StoredBlock] = {}
    columns = (BlockRow.digest, BlockRow.raw_size, BlockRow.stored_length, BlockRow.state)
    for chunk in chunks(digests):
        query = select(*columns).where(BlockRow.digest.in_(chunk), BlockRow.state.in_(HERE))
        for digest, raw_size, stored_length, state in session.execute(query):
            found[Digest(digest)] = StoredBlock(raw_size, stored_length, state != BLOCK_LIVE)
    return found


def claim(
    session: Session, draft_id: str, digests: Sequence[Digest], *, durable: bool, absent_too: bool = False
) -> Claimed:
    """Lease those that are here to a draft (`absent_too`: also those that it is about to bring), reviving them.

    Nothing that is leased is collected. What is being deleted is not leased: it is here again after a new upload only.
    """
    deleting = _in_state(session, digests, BLOCK_DELETING)
    _revive(session, digests, BLOCK_LIVE if durable else BLOCK_STAGED)
    present = stored(session, digests)
    wanted = [digest for digest in digests if digest not in deleting and (absent_too or digest in present)]
    insert_new(session, Lease, [{"draft_id": draft_id, "digest": digest} for digest in wanted])
    return Claimed(present, frozenset(deleting))


def add(session: Session, found: Iterable[tuple[Digest, int, int]], *, durable: bool, now_s: int) -> None:
    """Rows for (digest, raw size, stored length) of frames that now stand in the store."""
    state = BLOCK_LIVE if durable else BLOCK_STAGED
    rows = [
        {"digest": digest, "raw_size": raw_size, "stored_length": length, "state": state, "created_s": now_s}
        for digest, raw_size, length in found
    ]
    insert_new(session, BlockRow, rows)


def put_again(session: Session, found: Sequence[tuple[Digest, int, int]], *, durable: bool) -> None:
    """These had a row and no file, and have been written now: what the row says follows."""
    state = BLOCK_LIVE if durable else BLOCK_STAGED
    for digest, raw_size, length in found:
        session.execute(
            update(BlockRow)
            .where(BlockRow.digest == digest)
            .values(raw_size=raw_size, stored_length=length, state=state, condemned_s=None)
        )


def promote(session: Session, digests: Sequence[Digest]) -> None:
    """These have reached the disk: no power cut takes them any more."""
    _move(session, digests, BLOCK_STAGED, BLOCK_LIVE)


def needed_again(session: Session, digests: Sequence[Digest]) -> None:
    """A released version needs these, and their files stand: they are live, whatever an older database says."""
    for chunk in chunks(digests):
        session.execute(
            update(BlockRow)
            .where(BlockRow.digest.in_(chunk), BlockRow.state != BLOCK_LIVE)
            .values(state=BLOCK_LIVE, condemned_s=None)
            .execution_options(synchronize_session=False)
        )


def forget(session: Session, digest: Digest) -> None:
    """The frame is gone or damaged: the next upload of this block replaces it."""
    session.execute(delete(BlockRow).where(BlockRow.digest == digest, BlockRow.state != BLOCK_DELETING))


def forget_unsynced(session: Session) -> None:
    """After a power cut: what had not been synced is to be uploaded (and then verified where it stands) again.

    What was condemned may have been so: the collector looks for its files.
    """
    session.execute(delete(BlockRow).where(BlockRow.state.in_((BLOCK_STAGED, BLOCK_CONDEMNED))))


def _in_state(session: Session, digests: Sequence[Digest], state: str) -> set[Digest]:
    found: set[Digest] = set()
    for chunk in chunks(digests):
        query = select(BlockRow.digest).where(BlockRow.digest.in_(chunk), BlockRow.state == state)
        found.update(Digest(digest) for digest in session.scalars(query))
    return found


def _revive(session: Session, digests: Sequence[Digest], state: str) -> None:
    condemned = _in_state(session, digests, BLOCK_CONDEMNED)
    if condemned:
        _move(session, sorted(condemned), BLOCK_CONDEMNED, state)


def _move(session: Session, digests: Sequence[Digest], before: str, after: str) -> None:
    for chunk in chunks(digests):
        session.execute(
            update(BlockRow)
            .where(BlockRow.digest.in_(chunk), BlockRow.state == before)
            .values(state=after, condemned_s=None)
            .execution_options(synchronize_session=False)
        )
