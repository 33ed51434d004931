"""Events: what changed for readers, in the order in which it took force; rows are only ever added.

They are written in the transaction that makes the change, under the writer's lock: whoever has read up to an event
misses none by asking for those after it. Nothing in them is secret: readers see the same in signed metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.image_index import ImageIndex
from oscirc_server.models import EventRow

Kind = Literal[
    "version.released",
    "version.yanked",
    "version.restored",
    "version.deleted",
    "version.disavowed",
    "channel.moved",
    "channel.removed",
    "image.listed",
    "image.unlisted",
    "image.closed",
    "image.described",
    "publisher.added",
    "publisher.removed",
]
MAX_SERIAL = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class EventFacts:
    """One event; `subject` is a version label, a channel or empty."""

    id: int
    at_s: int
    kind: str
    publisher: str
    image: str
    subject: str
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: of a publisher, an image, a kind; the oldest first unless `newest_first`."""

    publisher: str = ""
    image: str = ""
    kind: str = ""
    newest_first: bool = False


def record(
    session: Session, at_s: int, kind: Kind, publisher: str, image: str = "", subject: str = "", **detail: object
) -> None:
    """Add an event."""
    text = json.dumps(detail, sort_keys=True)
    session.add(EventRow(at_s=at_s, kind=kind, publisher=publisher, image=image, subject=subject, detail=text))


def record_changes(session: Session, at_s: int, old: ImageIndex | None, new: ImageIndex) -> None:
    """What an image's next index changes; `old` is None for its first one."""
    before = old or ImageIndex(new.publisher, new.image)
    names = new.publisher, new.image
    _record_versions(session, at_s, before, new)
    for channel, label in new.channels.items():
        was = before.channels.get(channel)
        if was != label:
            record(session, at_s, "channel.moved", *names, channel, version=label, before=was)
    for channel in before.channels:
        if channel not in new.channels:
            record(session, at_s, "channel.removed", *names, channel)
    if new.closed and not before.closed:
        record(session, at_s, "image.closed", *names)
    if new.about != before.about and not new.closed:
        record(session, at_s, "image.described", *names, title=new.about.title)


def _record_versions(session: Session, at_s: int, old: ImageIndex, new: ImageIndex) -> None:
    names = new.publisher, new.image
    before = {version.label: version for version in old.versions}
    for version in new.versions:
        known = before.get(version.label)
        if known is None:
            record(session, at_s, "version.released", *names, version.label, manifest=version.manifest.hex())
        was = None if known is None else known.yanked
        if version.yanked is not None and version.yanked != was:
            why, security = version.yanked.why, version.yanked.security
            record(session, at_s, "version.yanked", *names, version.label, why=why, security=security)
        elif version.yanked is None and was is not None:
            record(session, at_s, "version.restored", *names, version.label)
    for gone in new.deleted:
        if gone.label in before:
            record(session, at_s, "version.deleted", *names, gone.label, why=gone.why)
    kept = {version.label for version in new.versions} | {gone.label for gone in new.deleted}
    for label in before:
        if label not in kept:  # an index that a thief had signed is taken back
            record(session, at_s, "version.disavowed", *names, label)


def page(session: Session, wanted: Wanted, *, after: str, limit: int) -> tuple[list[EventFacts], str | None]:
    """Events after a place (an event's number, or empty for the beginning), and the next place, None at the end."""
    statement = select(EventRow)
    for column, value in (
        (EventRow.publisher, wanted.publisher),
        (EventRow.image, wanted.image),
        (EventRow.kind, wanted.kind),
    ):
        if value:
            statement = statement.where(column == value)
    place = serial(after)
    if place is not None:
        statement = statement.where(EventRow.id < place if wanted.newest_first else EventRow.id > place)
    order = EventRow.id.desc() if wanted.newest_first else EventRow.id
    rows = list(session.scalars(statement.order_by(order).limit(limit + 1)))
    return [_facts(row) for row in rows[:limit]], str(rows[limit - 1].id) if len(rows) > limit else None


def serial(place: str) -> int | None:
    """A row's number out of a place in a list, None for the beginning; `UsageError` for anything else."""
    if not place:
        return None
    if not place.isascii() or not place.isdigit() or int(place) > MAX_SERIAL:
        raise UsageError(f"not a place in the list: {place[:80]!r}", hint="take `next` of the page before")
    return int(place)


def _facts(row: EventRow) -> EventFacts:
    return EventFacts(row.id, row.at_s, row.kind, row.publisher, row.image, row.subject, json.loads(row.detail))
