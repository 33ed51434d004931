"""Which files of the tree do not show yet what the database says: so that any process can complete what one began.

The entry is made in the transaction that changes what the file is made from (an *alone* one), and goes when the file
has been written. Each making gives it a new mark, and only the mark that was seen before the file was made is taken
away: a change that came in between keeps its entry. The timestamp's path stands for all signed metadata.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from oscirc_server.database import Database, chunks
from oscirc_server.models import PendingFile

_MARK_BITS = 62


def mark(session: Session, paths: Iterable[str], now_s: int) -> set[str]:
    """These files are to be written again; returns those of which that was known already."""
    known: set[str] = set()
    for path in sorted(set(paths)):
        row = session.get(PendingFile, path)
        if row is None:
            session.add(PendingFile(path=path, mark=secrets.randbits(_MARK_BITS), since_s=now_s))
        else:
            known.add(path)
            row.mark = secrets.randbits(_MARK_BITS)
    return known


def marked(session: Session, prefix: str = "") -> dict[str, int]:
    """The files that wait, with their marks."""
    query = select(PendingFile.path, PendingFile.mark).where(PendingFile.path.startswith(prefix, autoescape=True))
    return {row.path: row.mark for row in session.execute(query)}


def oldest_s(session: Session) -> int | None:
    """Since when the one that waits longest has waited; None when none does."""
    return session.scalar(select(func.min(PendingFile.since_s)))


def done(database: Database, marks: Mapping[str, int]) -> None:
    """These were written, as they were to be when their marks were seen."""
    if not marks:
        return
    with database.write() as session:
        for chunk in chunks(sorted(marks.items())):
            same = [and_(PendingFile.path == path, PendingFile.mark == number) for path, number in chunk]
            session.execute(delete(PendingFile).where(or_(*same)))
