"""A PostgreSQL of the tests' own: an ordinary user, a socket in a directory of its own, nothing synced to disk."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from .commands import end

_USER = "oscirc"
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
}


def program(name: str) -> str:
    """The newest server program of that name; set-up installs it."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    assert path, f"no {name}: run make setup"
    return path


@functools.cache
def _as_somebody() -> dict[str, object]:
    """PostgreSQL refuses to run as root: the user whom its package made, else one without any rights."""
    if os.geteuid() != 0:
        return {}
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam("postgres")
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@dataclass(frozen=True)
class Rows:
    """What stands in tables, as the server gives it, and where its sequences are."""

    tables: dict[str, bytes]
    sequences: dict[str, int]


@dataclass
class Cluster:
    """A running server; databases are made by copying others, which takes a few hundredths of a second."""

    directory: Path
    process: subprocess.Popen
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@/{database}?host={self.directory}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str = "template0") -> str:
        """The name of a new database, a copy of `template`, to which nobody may be connected."""
        name = f"t{next(self._serial)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return name

    def rows(self, name: str) -> Rows:
        """All that stands in a database's tables."""
        with psycopg.connect(self.url(name)) as connection:
            tables = {}
            for (table,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall():
                with connection.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                    tables[table] = b"".join(map(bytes, copy))
            sequences = connection.execute("SELECT sequencename, coalesce(last_value, 0) FROM pg_sequences").fetchall()
        return Rows(tables, dict(sequences))

    def fill(self, name: str, rows: Rows) -> None:
        """Make a database of the same form hold these rows and no others; a hundred times as quick as a new one."""
        with psycopg.connect(self.url(name)) as connection:
            emptying = "".join(f"DELETE FROM {table};" for table in rows.tables)  # noqa: S608
            connection.execute(f"SET LOCAL session_replication_role = replica; {emptying}")  # in any order
            for table, raw in rows.tables.items():
                with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                    copy.write(raw)
            for sequence, value in rows.sequences.items():
                connection.execute("SELECT setval(%s, %s, %s)", (sequence, max(value, 1), value > 0))

    def end_sessions(self, name: str) -> None:
        """Cut every connection to a database, as a restart or a broken network would."""
        self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _initialised(directory: Path) -> None:
    options = ["--no-sync", "-A", "trust", "-U", _USER, "--no-locale", "-E", "UTF8"]
    done = subprocess.run(
        [program("initdb"), "-D", directory / "data", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **_as_somebody(),
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Until the block ends."""
    somebody = _as_somebody()
    directory = Path(tempfile.mkdtemp(prefix="oscirc-postgresql-"))  # short: a socket's path has 107 bytes at most
    process = None
    try:
        if somebody:
            os.chown(directory, somebody["user"], somebody["group"])
        _initialised(directory)
        settings = [item for name, value in _SETTINGS.items() for item in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [program("postgres"), "-D", directory / "data", "-k", directory, *settings],
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the tests, which end it themselves
            **somebody,
        )
        started = Cluster(directory, process)
        deadline = time.monotonic() + 240
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                started.execute("SELECT 1")
                break
            assert process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.02)
        yield started
    finally:
        if process is not None:
            process.send_signal(2)  # "fast": SIGTERM would wait for every client
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            end(process)
        shutil.rmtree(directory, ignore_errors=True)
