"""How far open drafts have come: what is leased to each, and what it asked about that has not arrived.

A draft leases what it was told is here and what it uploads. What it reserved in its publisher's holdings and the store
does not have yet was asked about and not sent: counted as whole blocks of the draft, as quotas count it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from oscirc_server.installation import Installation
from oscirc_server.models import DRAFT_OPEN, BlockRow, Holding, Lease
from oscirc_server.services import drafts
from oscirc_server.services.drafts import DraftFacts


@dataclass(frozen=True, slots=True)
class Progress:
    """An open draft; bytes of leased frames as they are stored, of awaited blocks without compression."""

    draft: DraftFacts
    leased_blocks: int
    leased_bytes: int
    awaited_blocks: int
    awaited_bytes: int

    @property
    def lacks(self) -> str:
        """What stands between it and its release, in words."""
        lacking = []
        if self.awaited_blocks:
            lacking.append(f"{self.awaited_blocks} blocks that it asked about")
        if not self.draft.has_manifest:
            lacking.append("its manifest")
        return " and ".join(lacking) or "its release, signed by the publisher's key"


def of_publisher(installation: Installation, publisher: str) -> list[Progress]:
    """Every open draft of a publisher (at most `drafts.MAX_OPEN_DRAFTS`), the oldest first."""
    found: list[DraftFacts] = []
    after: str | None = ""
    while after is not None:
        page, after = drafts.page(installation, [publisher], after=after, limit=drafts.MAX_OPEN_DRAFTS)
        found += [draft for draft in page if draft.state == DRAFT_OPEN]
    return [_progress(installation, draft) for draft in sorted(found, key=lambda draft: draft.created_s)]


def _progress(installation: Installation, draft: DraftFacts) -> Progress:
    with installation.database.read() as session:
        leased, size = session.execute(
            select(func.count(), func.sum(BlockRow.stored_length))
            .select_from(Lease)
            .join(BlockRow, BlockRow.digest == Lease.digest)
            .where(Lease.draft_id == draft.id)
        ).one()
        awaited, awaited_bytes = session.execute(
            select(func.count(), func.sum(Holding.size))
            .select_from(Holding)
            .outerjoin(BlockRow, BlockRow.digest == Holding.digest)
            .where(Holding.draft_id == draft.id, BlockRow.digest.is_(None))
        ).one()
    return Progress(draft, leased, int(size or 0), awaited, int(awaited_bytes or 0))
