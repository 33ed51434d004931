"""Which images' rows changed, in the order in which that took force: by this, processes know what they have not read.

A row for each image that ever changed, with the number of its last change. Whoever changes rows of versions calls
`note` in the same transaction, which is alone (`Database.write`): numbers take force in their order, and no reader
ever sees one without what it stands for, nor without all that came before it.
"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from oscirc_server.models import CatalogChange


def note(session: Session, publisher: str, image: str) -> None:
    """The rows of this image are being changed."""
    session.merge(CatalogChange(publisher=publisher, image=image, serial=last(session) + 1))
    session.flush()


def last(session: Session) -> int:
    """The number of the last change, 0 where there was none."""
    return session.scalar(select(func.max(CatalogChange.serial))) or 0


def since(session: Session, serial: int, *, limit: int) -> list[tuple[str, str]] | None:
    """Publisher and name of the images that changed after that change; None where these are more than `limit`."""
    statement = select(CatalogChange.publisher, CatalogChange.image).where(CatalogChange.serial > serial)
    found = [(row.publisher, row.image) for row in session.execute(statement.limit(limit + 1))]
    return found if len(found) <= limit else None
