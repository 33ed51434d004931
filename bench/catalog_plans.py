"""What a warm search asks the database, and how that goes about it: the statements as they are sent, explained."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, event

from oscirc_server.database import Database
from oscirc_server.services import search
from oscirc_server.services.listing import Listing
from oscirc_server.services.search import Question

_Values = Mapping[str, object] | Sequence[object]
_PAGE_IMAGES = 30
_STEP = re.compile(r"(Seq Scan|Index\b.*?Scan\b.*?|Bitmap Index Scan|SCAN|SEARCH)\b.*?(?=\s+\(|$)")


def plans(database: Database) -> list[str]:
    """Of each statement of a warm search: what it asks for, and how its tables are read."""
    sent: list[tuple[str, _Values]] = []
    listing = Listing(time.time)
    with database.read() as session:
        listing.current(session)
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *given: sent.append((given[2], given[3])))
        search.search(listing, session, Question("server", {"architecture": ["x86_64"]}), limit=_PAGE_IMAGES)
        return [f"{_short(text)}: {_plan(connection, text, values)}" for text, values in list(sent)]


def _short(statement: str) -> str:
    table = re.search(r"FROM (\w+)", statement)
    what = "the number of the last change" if "max(" in statement else "the rows that are shown"
    return f"{what} ({table.group(1) if table else '?'})"


def _plan(connection: Connection, statement: str, values: _Values) -> str:
    word = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    lines = [str(row[-1]) for row in connection.exec_driver_sql(f"{word} {statement}", values).all()]  # type: ignore[arg-type]
    steps = [found.group(0) for line in lines if (found := _STEP.search(line))]
    return "; ".join(f"{steps.count(step)} times {step}" for step in dict.fromkeys(steps))
