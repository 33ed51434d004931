"""The list that search answers from, kept in memory by each process and brought up to date by whoever asks next.

- What is kept is the catalog at one change (`catalog_changes`), never changed afterwards (`columns`). A question
  belongs to a transaction, and gets the catalog at the last change which that transaction sees: the answer is never
  older than what any process had committed when the question came, and fits the rows that are read beside it.
- After a change the images that it concerns are read anew, and the rest is taken over. The list is read whole at the
  first question, after more than `MOST_CHANGES`, and where the database is older than all that is kept (restored).
- Facets may depend on the day: the next question on another day lays the same images out again.
- Kept are the last two: while one process's change spreads, transactions from before it still ask. Two catalogs share
  the images that are the same in both. Some 450 bytes for each version in all (docs/adr/0029).

Safe for threads. Whoever makes a new one holds the lock and waits for nothing but its own transaction's reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from oscirc_server.clock import Clock, date_text
from oscirc_server.models import VersionRow
from oscirc_server.services import catalog_changes
from oscirc_server.services.columns import Columns, Image, Version, image_of
from oscirc_server.services.facets import FACETS, Facet, Fact

MOST_CHANGES = 200
_KEPT = 2
_ROWS_AT_ONCE = 5000
_COLUMNS: Final = (
    VersionRow.name,
    VersionRow.label,
    VersionRow.position,
    VersionRow.released,
    VersionRow.shown,
    VersionRow.search_text,
)


class Listing:
    """The catalogs that are kept. One for an application."""

    def __init__(self, clock: Clock, facets: Sequence[Facet] = FACETS) -> None:
        self._clock, self._facets = clock, tuple(facets)
        self._lock = threading.Lock()
        self._kept: tuple[Columns, ...] = ()  # the one that was made last comes first

    def current(self, session: Session) -> Columns:
        """The catalog as this transaction sees it."""
        serial, today = catalog_changes.last(session), date_text(self._clock())[:10]
        found = self._find(serial, today)
        if found is None:
            with self._lock:
                found = self._find(serial, today) or self._made(session, serial, today)
        return found

    def _find(self, serial: int, today: str) -> Columns | None:
        return next((each for each in self._kept if (each.serial, each.today) == (serial, today)), None)

    def _made(self, session: Session, serial: int, today: str) -> Columns:
        older = [each for each in self._kept if each.serial <= serial]
        base = max(older, key=lambda each: each.serial, default=None)
        changed = None if base is None else catalog_changes.since(session, base.serial, limit=MOST_CHANGES)
        if base is None or changed is None:
            images = {image.name: image for image in self._read(session)}
        else:
            gone = {f"{publisher}/{image}" for publisher, image in changed}
            images = {image.name: image for image in base.images if image.name not in gone}
            for publisher, name in changed:
                of_image = (VersionRow.publisher == publisher, VersionRow.image == name)
                images |= {image.name: image for image in self._read(session, *of_image)}
        made = Columns(images.values(), self._facets, serial=serial, today=today)
        self._kept = (made, *self._kept)[:_KEPT]
        return made

    def _read(self, session: Session, *of_image: ColumnElement[bool]) -> Iterator[Image]:
        """The images of the list, or one of them."""
        columns: list[InstrumentedAttribute[Any]] = [*_COLUMNS, *(facet.column for facet in self._facets)]
        statement = select(*columns).where(VersionRow.searched.is_(True), *of_image).order_by(VersionRow.name)
        same: dict[tuple[Fact, ...], tuple[Fact, ...]] = {}  # most versions have the facts of another one
        found = session.execute(statement.execution_options(yield_per=_ROWS_AT_ONCE))
        for name, rows in groupby(found, key=itemgetter(0)):
            versions = []
            for _, label, position, released, shown, text, *rest in rows:
                facts = tuple(rest)
                versions.append(Version(label, position, released, shown, text, same.setdefault(facts, facts)))
            image = image_of(name, versions)
            if image is not None:
                yield image
