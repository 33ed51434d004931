"""The audit trail: one row per change of authority or content, in the transaction that makes the change."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from oscirc_server.models import AuditRow
from oscirc_server.services.events import serial


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """One row: who (a token's id, or `local` for a command on this machine) did what to what."""

    id: int
    at_s: int
    actor: str
    action: str
    subject: str
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: of an actor, an action, a subject (its beginning), since and until (seconds since the epoch)."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    since_s: int | None = None
    until_s: int | None = None


def record(session: Session, at_s: int, actor: str, action: str, subject: str, **detail: object) -> None:
    """Add a row; `detail` is values for a later reader, never a secret."""
    text = json.dumps(detail, sort_keys=True)
    session.add(AuditRow(at_s=at_s, actor=actor[:80], action=action, subject=subject[:255], detail=text))


def page(session: Session, wanted: Wanted, *, after: str, limit: int) -> tuple[list[AuditFacts], str | None]:
    """Rows, the newest first, after a place (a row's number); and the next place, None at the end."""
    statement = select(AuditRow)
    if wanted.actor:
        statement = statement.where(AuditRow.actor == wanted.actor)
    if wanted.action:
        statement = statement.where(AuditRow.action == wanted.action)
    if wanted.subject:
        statement = statement.where(AuditRow.subject.startswith(wanted.subject, autoescape=True))
    if wanted.since_s is not None:
        statement = statement.where(AuditRow.at_s >= wanted.since_s)
    if wanted.until_s is not None:
        statement = statement.where(AuditRow.at_s < wanted.until_s)
    place = serial(after)
    if place is not None:
        statement = statement.where(AuditRow.id < place)
    rows = list(session.scalars(statement.order_by(AuditRow.id.desc()).limit(limit + 1)))
    found = [
        AuditFacts(row.id, row.at_s, row.actor, row.action, row.subject, json.loads(row.detail)) for row in rows[:limit]
    ]
    return found, str(rows[limit - 1].id) if len(rows) > limit else None
