"""Where a repository of the tests stands: SQLite and a directory, or PostgreSQL and a bucket; copied to be used once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import Protocol

from .postgresql import Cluster, Rows
from .s3 import S3Server

SQLITE = "sqlite-and-directory"
POSTGRESQL = "postgresql-and-bucket"
BOTH = (SQLITE, POSTGRESQL)
_SQLITE_FILES = ("oscirc.db", "oscirc.db-wal", "oscirc.db-shm")


class Place(Protocol):
    """`tree` is where its files can be read and damaged, whatever serves them."""

    @property
    def database_url(self) -> str | None: ...
    @property
    def blocks_url(self) -> str | None: ...
    @property
    def tree(self) -> Path: ...
    @property
    def keeps_what_is_put(self) -> bool:
        """Whether no power cut takes a file that was put."""

    def copy(self, data: Path) -> Place:
        """The same state in another place; `data` is the data directory there, copied already."""

    def save_database(self) -> object:
        """What `restore_database` brings back; nobody may be connected meanwhile."""

    def restore_database(self, saved: object) -> None: ...

    def lose_store(self) -> None:
        """From now on nothing can be written."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class OneDirectory:
    """All in the data directory."""

    data: Path
    database_url: str | None = None
    blocks_url: str | None = None
    keeps_what_is_put = False

    @property
    def tree(self) -> Path:
        return self.data / "tree"

    def copy(self, data: Path) -> OneDirectory:
        return OneDirectory(data)

    def save_database(self) -> dict[str, bytes]:
        return {name: (self.data / name).read_bytes() for name in _SQLITE_FILES if (self.data / name).exists()}

    def restore_database(self, saved: dict[str, bytes]) -> None:
        for name in _SQLITE_FILES:
            (self.data / name).unlink(missing_ok=True)
        for name, raw in saved.items():
            (self.data / name).write_bytes(raw)

    def lose_store(self) -> None:
        (self.data / "tmp").rmdir()

    def close(self) -> None:
        """Its directory goes with the test's."""


class _BucketPath(PosixPath):
    """A path among the buckets: who changes a file there lets the server see it."""

    server: S3Server

    def write_bytes(self, data: bytes) -> int:
        written = super().write_bytes(data)
        self.server.notice()
        return written

    def seen(self) -> None:
        """After something was changed past this class."""
        self.server.notice()

    def unlink(self, missing_ok: bool = False) -> None:
        super().unlink(missing_ok)
        self.server.notice()


@dataclass(frozen=True)
class Shared:
    """A database of the cluster and a bucket of the server, as several machines would share them."""

    cluster: Cluster
    server: S3Server
    database: str
    bucket: str
    free: list[str] = field(default_factory=list)
    """Databases of the same form that nobody uses any more: filled anew instead of made anew."""
    keeps_what_is_put = True

    @classmethod
    def new(cls, cluster: Cluster, server: S3Server) -> Shared:
        return cls(cluster, server, cluster.create(), server.bucket())

    @property
    def database_url(self) -> str:
        return self.cluster.url(self.database)

    @property
    def blocks_url(self) -> str:
        return self.server.url(self.bucket, "a/prefix")

    @property
    def tree(self) -> Path:
        kind = type("BucketPath", (_BucketPath,), {"server": self.server})
        return kind(self.server.root / self.bucket / "a" / "prefix")

    def copy(self, data: Path) -> Shared:
        bucket = self.server.bucket(self.bucket)
        if not self.free:
            self.free.append(self.cluster.create(self.database))
        database = self.free.pop()
        self.cluster.fill(database, self.save_database())
        return Shared(self.cluster, self.server, database, bucket, self.free)

    def save_database(self) -> Rows:
        return self.cluster.rows(self.database)

    def restore_database(self, saved: Rows) -> None:
        self.cluster.fill(self.database, saved)

    def lose_store(self) -> None:
        shutil.rmtree(self.server.root / self.bucket)
        self.server.notice()

    def close(self) -> None:
        self.free.append(self.database)
        shutil.rmtree(self.server.root / self.bucket, ignore_errors=True)
