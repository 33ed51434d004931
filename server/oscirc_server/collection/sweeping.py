"""Block rows against marks: what nothing needs is condemned, later deleted; what is needed again is revived.

Every transaction is of one chunk of rows and alone, so that "not leased" is true when it commits. A deletion is three
steps: rows become `deleting` (durably: after a power cut no row may promise a file that is gone), files are removed,
rows go (`removing`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from oscirc_blockstore.digests import Digest
from oscirc_server.collection import removing
from oscirc_server.collection.marking import lasting
from oscirc_server.collection.report import Report
from oscirc_server.database import CHUNK, chunks, insert_new
from oscirc_server.installation import Installation
from oscirc_server.locks import Held
from oscirc_server.models import BLOCK_CONDEMNED, BLOCK_DELETING, BLOCK_LIVE, BLOCK_STAGED, BlockRow, Lease
from oscirc_server.repository import CLOCK_SLACK_S
from oscirc_server.services import blocks

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Row:
    """A block's row."""

    digest: Digest
    state: str
    stored_length: int
    created_s: int
    condemned_s: int


class Sweeper:
    """For one collection, which began at `started_s`; `held` is the collector's lock."""

    def __init__(
        self,
        installation: Installation,
        held: Held,
        started_s: int,
        report: Report,
        before_deleting: Callable[[], None],
    ) -> None:
        self._before_deleting = before_deleting
        self._announced = False
        self._condemned: list[Row] = []
        self._due: list[Row] = []
        self._installation = installation
        self._held = held
        self._started_s = started_s
        self._report = report

    def rows(self, part: int) -> Iterator[Sequence[Row]]:
        """The rows of a part by digest, in pages."""
        after, end = bytes([part]), bytes([part + 1]) if part < 255 else b"\xff" * 33  # noqa: PLR2004
        columns = (BlockRow.digest, BlockRow.state, BlockRow.stored_length, BlockRow.created_s, BlockRow.condemned_s)
        while True:
            with self._installation.database.read() as session:
                query = select(*columns).where(BlockRow.digest > after, BlockRow.digest < end)
                found = session.execute(query.order_by(BlockRow.digest).limit(_PAGE)).all()
            page = [Row(Digest(row[0]), row[1], row[2], row[3], row[4] or 0) for row in found]
            yield page
            if len(page) < _PAGE:
                return
            after = page[-1].digest

    def sweep(self, page: Sequence[Row], marked: set[Digest]) -> None:
        """Judge a page's rows by marks that were made after `started_s`."""
        report, grace_s = self._report, self._installation.settings.collection.condemned_for_s
        revived: list[Row] = []
        condemned, due = self._condemned, self._due
        for row in page:
            if row.state == BLOCK_CONDEMNED:
                if row.digest in marked:
                    revived.append(row)
                elif row.condemned_s > self._started_s + CLOCK_SLACK_S:
                    condemned.append(row)  # by a clock that was wrong
                elif row.condemned_s < self._started_s and row.condemned_s + grace_s <= self._started_s:
                    due.append(row)
                else:
                    report.waiting.add(row.stored_length)
            elif row.state != BLOCK_DELETING and row.digest not in marked and row.created_s < self._started_s:
                condemned.append(row)
        for chunk in chunks(revived):
            self._revive(chunk)
        self._work_off(CHUNK)

    def finish(self) -> None:
        """What was judged and not done yet."""
        self._work_off(1)

    def _work_off(self, least: int) -> None:
        """In chunks of many parts, so that few transactions are needed; what is left is less than `least`."""
        for rows, act in ((self._condemned, self._condemn), (self._due, self._delete)):
            while len(rows) >= least:
                chunk = rows[:CHUNK]
                del rows[:CHUNK]
                act(chunk)

    def _revive(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._report.revived.add(row.stored_length)
        # what is staged is synced by the release that needs it
        after = BLOCK_LIVE if self._installation.storage.durable_on_put else BLOCK_STAGED
        with self._excluding() as session:
            self._move(session, rows, (BLOCK_CONDEMNED,), after, None)

    def _condemn(self, rows: Sequence[Row]) -> None:
        now_s = self._installation.now_s()
        with self._excluding() as session:
            moved = self._move(session, rows, blocks.HERE, BLOCK_CONDEMNED, now_s)
        for row in rows:
            if row.digest in moved:
                self._report.condemned.add(row.stored_length)

    def _delete(self, rows: Sequence[Row]) -> None:
        self._announce()
        now_s, begun = self._installation.now_s(), removing.now_s()
        with self._excluding(durable=True) as session:
            moved = self._move(session, rows, (BLOCK_CONDEMNED,), BLOCK_DELETING, now_s)
        for row in rows:
            if row.digest in moved:
                self._report.deleted.add(row.stored_length)
        if not self._report.dry_run:
            removing.remove(self._installation, self._held, sorted(moved), now_s, begun)

    def delete_orphans(self, found: Sequence[tuple[Digest, int]]) -> None:
        """(digest, length) of files without a row: those that nobody leases are given one, and deleted."""
        if found:
            self._announce()
        for chunk in chunks(found):
            now_s, begun = self._installation.now_s(), removing.now_s()
            with self._excluding(durable=True) as session:
                wanted = [digest for digest, _ in chunk]
                taken = set(session.scalars(select(Lease.digest).where(Lease.digest.in_(wanted))))
                taken.update(session.scalars(select(BlockRow.digest).where(BlockRow.digest.in_(wanted))))
                free = [(digest, length) for digest, length in chunk if digest not in taken]
                if not self._report.dry_run:
                    facts = {"raw_size": 0, "state": BLOCK_DELETING, "created_s": now_s, "condemned_s": now_s}
                    rows = [{"digest": digest, "stored_length": length, **facts} for digest, length in free]
                    insert_new(session, BlockRow, rows)
            for _, length in free:
                self._report.orphans.add(length)
            if not self._report.dry_run:
                removing.remove(self._installation, self._held, [digest for digest, _ in free], now_s, begun)

    def _announce(self) -> None:
        """Once, before the first deletion of a collection (`serial`)."""
        if not self._announced and not self._report.dry_run:
            self._before_deleting()
            self._announced = True

    @contextlib.contextmanager
    def _excluding(self, *, durable: bool = False) -> Iterator[Session]:
        """A transaction of our own, in which nobody leases; a dry run looks only."""
        if self._report.dry_run:
            with self._installation.database.read() as session:
                yield session
            return
        with self._installation.database.write(durable=durable) as session:
            yield session

    def _move(
        self, session: Session, rows: Sequence[Row], before: Sequence[str], after: str, condemned_s: int | None
    ) -> set[Digest]:
        """Change the state of those that still are as they were, and that nobody leases; which those were."""
        digests = [row.digest for row in rows]
        leased = exists().where(Lease.digest == BlockRow.digest)
        if self._report.dry_run:
            leased = leased.where(lasting(self._installation.now_s()))
        still: list[ColumnElement[bool]] = [BlockRow.digest.in_(digests), BlockRow.state.in_(before)]
        if after in (BLOCK_CONDEMNED, BLOCK_DELETING):
            still.append(~leased)
        moved = {Digest(digest) for digest in session.scalars(select(BlockRow.digest).where(*still))}
        if not self._report.dry_run:
            session.execute(
                update(BlockRow)
                .where(*still)
                .values(state=after, condemned_s=condemned_s)
                .execution_options(synchronize_session=False)
            )
        return moved
