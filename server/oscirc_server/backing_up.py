"""Backups of what cannot be had again: the database and the keys that this server signs with. Blocks are not in it.

A backup is a folder named by its time: `oscirc.db` (SQLite) or `oscirc.pgdump` (PostgreSQL's own form), `keys/`, and
`backup.json`, which says what is in it and how each file hashes. It appears whole or not at all, is for its owner
alone, and is made beside a running server: the database's own means give a consistent copy.

The store is copied *after* the database, never before: what it has more is verified and used or collected, what it had
less would be missing. A database that is older than the store is brought up to it at the next start (`reconciling`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from oscirc_blockstore.errors import DocumentRefusedError, LocalError, MissingProgramError, NotFoundError
from oscirc_server import repository
from oscirc_server.database import sqlite_url
from oscirc_server.engines import parse_url
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.settings import Layout, Settings

SQLITE_NAME = "oscirc.db"
POSTGRESQL_NAME = "oscirc.pgdump"
FACTS_NAME = "backup.json"
FORMAT = "oscirc-backup-1"

_NAME = "%Y-%m-%dT%H%M%SZ"
_MAX_FACTS_BYTES = 1 << 20
_PROGRAM_TIMEOUT_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup: where it is, when it was made, which database it holds, and the versions of the four roles in it."""

    directory: Path
    made: str
    database: str
    roles: dict[str, int]
    files: dict[str, str]

    @property
    def length_bytes(self) -> int:
        """How long its files are together."""
        return sum((self.directory / name).stat().st_size for name in self.files)


def back_up(installation: Installation, directory: Path, *, keep: int | None = None) -> Backup:
    """Make one below `directory`; of those that are there the `keep` newest stay (None: all)."""
    made = datetime.fromtimestamp(installation.now_s(), UTC).strftime(_NAME)
    final, partial = directory / made, directory / f".{made}.partial"
    if final.exists():
        raise LocalError(f"{final} exists already", hint="a backup is made once a second at most")
    with _translated(str(directory)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
    try:
        url = _url_of(installation.settings)
        name = SQLITE_NAME if url.get_backend_name() == "sqlite" else POSTGRESQL_NAME
        with _translated(str(partial)):
            if name == SQLITE_NAME:
                _copy_sqlite(Path(url.database or ""), partial / name)
            else:
                _dump(url, partial / name)
            _copy_keys(installation.layout.keys, partial / "keys")
            with installation.database.read() as session:
                roles = {role: repository.current_version(session, role) for role in (*OFFLINE_ROLES, *ONLINE_ROLES)}
            files = {path: _hashed(partial / path) for path in _files(partial)}
            facts = {"format": FORMAT, "made": made, "database": url.get_backend_name(), "roles": roles, "files": files}
            (partial / FACTS_NAME).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            for path in (*_files(partial), FACTS_NAME):
                (partial / path).chmod(0o600)
                _sync(partial / path)
            partial.rename(final)
            _sync(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if keep is not None:
        for old in backups(directory)[:-keep]:
            with _translated(str(old.directory)), contextlib.suppress(FileNotFoundError):  # another one removes it, too
                shutil.rmtree(old.directory)
    return read(final)


def _copy_keys(keys: Path, copies: Path) -> None:
    """All or, where a rotation renames one meanwhile, all once more; raises for a link that leads nowhere."""
    for last in (False, False, True):
        copies.mkdir(mode=0o700)
        try:
            for key in sorted(keys.glob("*.pem*")):
                shutil.copyfile(key, copies / key.name)
        except FileNotFoundError:
            if last:
                raise
            shutil.rmtree(copies)
        else:
            return


def backups(directory: Path) -> list[Backup]:
    """Those below a directory, the oldest first; folders that are none are passed over."""
    found: list[Backup] = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        with contextlib.suppress(NotFoundError, DocumentRefusedError):
            found.append(read(path))
    return found


def read(directory: Path) -> Backup:
    """What a backup says of itself; `check` says whether that is so."""
    try:
        with (directory / FACTS_NAME).open("rb") as file:
            raw = file.read(_MAX_FACTS_BYTES)
    except OSError:
        raise NotFoundError(f"{directory} is no backup") from None
    try:
        facts = json.loads(raw)
        if facts["format"] != FORMAT:
            raise DocumentRefusedError(f"{directory} is a backup of another form: {str(facts['format'])[:40]}")
        files = {str(name): str(digest) for name, digest in facts["files"].items()}
        roles = {str(role): int(version) for role, version in facts["roles"].items()}
        backup = Backup(directory, str(facts["made"]), str(facts["database"]), roles, files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DocumentRefusedError(f"{directory / FACTS_NAME} cannot be read") from None
    for name in files:
        parts = name.split("/")
        if not all(parts) or ".." in parts or len(parts) > 2:  # noqa: PLR2004  (keys/NAME)
            raise DocumentRefusedError(f"{directory / FACTS_NAME} names a file elsewhere: {name[:80]!r}")
    return backup


def check(backup: Backup) -> None:
    """Hash every file; `DocumentRefusedError` where one is missing or differs."""
    for name, digest in backup.files.items():
        try:
            hashed = _hashed(backup.directory / name)
        except OSError as error:
            raise DocumentRefusedError(f"{backup.directory / name} is missing: {error.strerror}") from None
        if hashed != digest:
            raise DocumentRefusedError(f"{backup.directory / name} is not what was backed up", hint="use another one")


def url_without_password(url: URL) -> tuple[str, dict[str, str]]:
    """For PostgreSQL's own programs: the URL as they know it, and the environment that its password goes into."""
    secret = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    public = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    text = public.render_as_string(hide_password=False)
    return text.replace("+", "%20"), secret  # SQLAlchemy's word for a space, which libpq takes for a plus


def _url_of(settings: Settings) -> URL:
    return parse_url(settings.database_url or sqlite_url(Layout(settings.data_dir).database))


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online backup: consistent whatever is written meanwhile."""
    try:
        with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
            old.backup(new, pages=4096)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, without companions
            (verdict,) = new.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise LocalError(f"the database cannot be copied: {error}") from None
    if verdict != "ok":
        raise LocalError(f"the database is damaged: {str(verdict)[:200]}", hint="restore an earlier backup")


def _dump(url: URL, target: Path) -> None:
    text, secret = url_without_password(url)
    command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}", f"--dbname={text}"]
    run_program(command, secret)


def run_program(command: list[str], secret: dict[str, str]) -> None:
    """One of PostgreSQL's own programs; what it says on its standard error is the error's message."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **secret}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_PROGRAM_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise MissingProgramError(
            f"{command[0]} is not installed", hint="it comes with PostgreSQL's client programs (postgresql-client)"
        ) from None
    except subprocess.TimeoutExpired:
        raise LocalError(f"{command[0]} did not come to an end") from None
    if done.returncode:
        raise LocalError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")


def _files(directory: Path) -> list[str]:
    found = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != FACTS_NAME)
    return [path.relative_to(directory).as_posix() for path in found]


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"cannot use {what}: {error.strerror or error}") from None
