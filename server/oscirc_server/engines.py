"""Connections to a database by URL: which driver, and how soon the two ends notice that the other is gone.

`postgresql://…` means psycopg 3. A server's machine may vanish without a word, and PostgreSQL keeps the locks of a
session until it notices: both ends are therefore told to probe an idle connection, so that a lock is free again half a
minute later. What the URL itself says wins. Passwords belong into PGPASSWORD, a password file or the environment's
OSCIRC_DATABASE, where other users of the machine cannot read them as they can a command's arguments.
"""

from __future__ import annotations

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from oscirc_blockstore.errors import UsageError

_PROBES = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
_CLIENT_DEFAULTS: dict[str, str] = {
    "application_name": "oscirc",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "options": " ".join(f"-c {name}={value}" for name, value in _PROBES.items()),
}


def parse_url(text: str) -> URL:
    """The URL with its driver; `UsageError` for what is none."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UsageError(
            "cannot read the database URL", hint="write postgresql://USER@HOST/NAME or sqlite:////PATH"
        ) from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        url = url.update_query_dict({**_CLIENT_DEFAULTS, **url.query})
    return url


def open_engine(text: str, *, autocommit: bool = False, pool_size: int = 5, max_overflow: int = 20) -> Engine:
    """An engine whose connections are looked at before they are used again."""
    url = parse_url(text)
    try:
        if url.get_backend_name() == "sqlite":
            return create_engine(url)
        engine = create_engine(url, pool_size=pool_size, max_overflow=max_overflow, pool_pre_ping=True)
        return engine.execution_options(isolation_level="AUTOCOMMIT") if autocommit else engine
    except ImportError as error:
        raise UsageError(
            f"no driver for this database: {error}", hint="pip install 'oscirc[postgresql]' brings PostgreSQL's"
        ) from None
    except (ArgumentError, ValueError) as error:
        raise UsageError(f"cannot use this database URL: {error}") from None
