"""Restores a backup into a data directory, and into the database that its settings name. No server may run meanwhile.

What stood there is kept: a SQLite file and keys that differ are set aside under `<name>.before-<time>`; a PostgreSQL
database must be empty, since setting aside is the operator's affair there. A check of every file comes first, so that
a damaged backup changes nothing. The store is not touched: the server's next start brings the two to agree, and signs
above every version number that the store has seen.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import inspect

from oscirc_blockstore.errors import BusyError, LocalError, UsageError
from oscirc_server.backing_up import POSTGRESQL_NAME, SQLITE_NAME, Backup, check, run_program, url_without_password
from oscirc_server.clock import Clock, system_clock
from oscirc_server.database import sqlite_url
from oscirc_server.engines import open_engine, parse_url
from oscirc_server.settings import Settings

_COMPANIONS = ("", "-wal", "-shm", "-journal")


def restore(settings: Settings, backup: Backup, clock: Clock = system_clock) -> list[Path]:
    """Put a backup in place; returns what was set aside."""
    check(backup)
    url_text = settings.database_url or sqlite_url(settings.layout.database)
    url = parse_url(url_text)
    if url.get_backend_name() != backup.database:
        raise UsageError(
            f"the backup is of {backup.database}, the server's database is {url.get_backend_name()}",
            hint="name the database with --database",
        )
    try:
        settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"cannot make {settings.data_dir}: {error.strerror}") from None
    suffix = f".before-{datetime.fromtimestamp(int(clock()), UTC).strftime('%Y-%m-%dT%H%M%SZ')}"
    lock = FileLock(settings.layout.serve_lock, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"a server runs on {settings.data_dir}", hint="stop it first") from None
    try:
        if backup.database == "sqlite":
            aside = _restore_sqlite(backup, Path(url.database or ""), suffix)
        else:
            _restore_postgresql(backup, url_text)
            aside = []
        return aside + _restore_keys(backup, settings.layout.keys, suffix)
    except OSError as error:
        raise LocalError(f"cannot restore into {settings.data_dir}: {error.strerror or error}") from None
    finally:
        lock.release()


def _restore_sqlite(backup: Backup, target: Path, suffix: str) -> list[Path]:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    _copy(backup.directory / SQLITE_NAME, partial)
    aside = []
    for companion in _COMPANIONS:  # a journal that is not the file's own would be played into it
        old = target.with_name(target.name + companion)
        if old.exists():
            kept = target.with_name(target.name + suffix + companion)
            old.rename(kept)
            aside.append(kept)
    partial.rename(target)
    return aside


def _restore_postgresql(backup: Backup, url_text: str) -> None:
    engine = open_engine(url_text)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables:
        raise UsageError(
            f"the database is not empty: it has {len(tables)} tables",
            hint="rename it and make an empty one: ALTER DATABASE …; CREATE DATABASE …",
        )
    text, secret = url_without_password(parse_url(url_text))
    options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", f"--dbname={text}"]
    run_program(["pg_restore", *options, str(backup.directory / POSTGRESQL_NAME)], secret)


def _restore_keys(backup: Backup, directory: Path, suffix: str) -> list[Path]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = []
    for name in backup.files:
        folder, _, key = name.partition("/")
        if folder != "keys":
            continue
        source, target = backup.directory / name, directory / key
        if target.exists():
            if filecmp.cmp(source, target, shallow=False):
                continue
            kept = target.with_name(target.name + suffix)
            target.rename(kept)
            aside.append(kept)
        _copy(source, target)
    return aside


def _copy(source: Path, target: Path) -> None:
    """A copy that is its owner's alone from the first byte on, and on disk when this returns."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(source.open("rb"))
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        new = stack.enter_context(os.fdopen(descriptor, "wb"))
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
