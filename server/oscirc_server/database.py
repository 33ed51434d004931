"""The database behind two doors: `read` and `write`, each one transaction in a session of its own.

A write is alone: nobody else writes between its first statement and its commit, so what it has read stays true. In
SQLite (WAL mode) that is `BEGIN IMMEDIATE` behind a lock of this process, since SQLite's own polls; in PostgreSQL an
advisory lock that the transaction takes first. The frequent writes of uploads are `shared`: in PostgreSQL they run
beside each other, never beside one that is alone. Whoever writes that way inserts in the order of keys (`insert_new`
does) and locks the rows that it has decided by. Readers wait for nobody and see one state.

A `durable` write has reached the disk when it returns; the others (rows about uploaded blocks) may be lost in a power
cut, which costs an upload and nothing else. Who waits for a turn longer than 30 s gets `BusyError`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_server.engines import open_engine
from oscirc_server.models import Base, Fact

BUSY_TIMEOUT_MS = 30_000
CHUNK = 500  # values in one IN list: far below every database's limit of variables

_WRITERS = 0x6F7363697263  # the key of PostgreSQL's advisory lock: "oscirc"
_BUSY = ("55P03", "40P01", "40001")  # PostgreSQL's SQLSTATE: lock timeout, deadlock, serialization failure
_TURN = text("SELECT set_config('synchronous_commit', :durable, true), set_config('lock_timeout', :timeout, true)")
_ALONE_TURN = text("SELECT pg_advisory_xact_lock(:key)")
_SHARED_TURN = text("SELECT pg_advisory_xact_lock_shared(:key)")
_Item = TypeVar("_Item")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


def chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """`items` in pieces that fit one statement."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def _on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # this module says BEGIN itself; the driver's own way cannot say IMMEDIATE
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("oscirc_write"):
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('oscirc_durable') else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """Connections of this process: in use, idle, and how many there may be."""

    in_use: int
    idle: int
    limit: int


class Database:
    """One database; safe for threads. `close` it, or its connections outlive it."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = open_engine(url)
        self.is_sqlite = self._engine.dialect.name == "sqlite"
        self._writing = threading.Lock()
        if self.is_sqlite:
            event.listen(self._engine, "connect", _on_connect)
            event.listen(self._engine, "begin", _on_begin)

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view; nothing done in it is kept."""
        engine = self._engine
        if not self.is_sqlite:  # SQLite's readers see one state anyway
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with Session(engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self, *, durable: bool = False, shared: bool = False) -> Iterator[Session]:
        """One transaction, committed when the block ends well; alone, or beside others that are `shared`, too."""
        engine = self._engine.execution_options(oscirc_write=True, oscirc_durable=durable)
        turn = self._writing if self.is_sqlite else contextlib.nullcontext()
        try:
            with turn, Session(engine, expire_on_commit=False) as session, session.begin():
                if not self.is_sqlite:
                    session.execute(_TURN, {"durable": "on" if durable else "off", "timeout": f"{BUSY_TIMEOUT_MS}ms"})
                    session.execute(_SHARED_TURN if shared else _ALONE_TURN, {"key": _WRITERS})
                yield session
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) in _BUSY:
                raise BusyError("others have been writing to the database for too long", hint="try again") from None
            raise

    def migrate(self) -> None:
        """Bring the tables to this version's form (Alembic; the steps are in `migrations/versions`)."""
        try:
            self._migrate()
        except CommandError as error:
            raise LocalError(
                f"the database was made by another version of this program: {error}", hint="update this program"
            ) from None
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise LocalError(f"the database cannot be used: {str(reason)[:300]}") from None

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", "oscirc_server:migrations")
        engine = self._engine.execution_options(oscirc_write=True, oscirc_durable=True)
        with engine.begin() as connection:
            if not self.is_sqlite:
                connection.execute(_ALONE_TURN, {"key": _WRITERS})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def pool(self) -> PoolFacts:
        """How the connections are used now."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return PoolFacts(0, 0, 0)
        return PoolFacts(pool.checkedout(), pool.checkedin(), pool.size() + max(0, pool._max_overflow))  # noqa: SLF001  # it has no other way to say

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def table_of(model: type[Base]) -> Table:
    """The table of a model, for statements over many rows."""
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101  (true of every class with a __tablename__)
    return table


def insert_new(session: Session, model: type[Base], rows: Sequence[dict[str, Any]]) -> None:
    """Insert many rows, in the order of their keys; those whose key exists are left as they are."""
    if not rows:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    table = table_of(model)
    keys = [column.name for column in table.primary_key if column.name in rows[0]]
    ordered = sorted(rows, key=lambda row: tuple(row[key] for key in keys))
    session.connection().execute(insert(table).on_conflict_do_nothing(), ordered)


def get_fact(session: Session, name: str) -> str | None:
    """One of the repository's facts."""
    return session.scalar(select(Fact.value).where(Fact.name == name))


def set_fact(session: Session, name: str, value: str) -> None:
    """Remember a fact."""
    session.merge(Fact(name=name, value=value))  # writes are alone: nobody adds it in between
