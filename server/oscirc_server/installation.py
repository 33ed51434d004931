"""An opened data directory: its database, its storage and its locks, which every service is given as one value."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from oscirc_blockstore.errors import LocalError
from oscirc_server.clock import Clock, system_clock
from oscirc_server.database import Database, sqlite_url
from oscirc_server.engines import open_engine
from oscirc_server.errors import NotInitialisedError
from oscirc_server.locks import WRITER, DatabaseLocks, FileLocks, Locks
from oscirc_server.object_storage import ObjectStorage
from oscirc_server.settings import Layout, Settings
from oscirc_server.storage import DirectoryStorage, Storage


def _open_storage(settings: Settings) -> Storage:
    url = settings.blocks_url
    if url is None:
        return DirectoryStorage(settings.layout.tree, settings.layout.temporary)
    if url.startswith("file://"):
        root = Path(unquote(urlsplit(url).path))
        return DirectoryStorage(root, root.with_name(f".{root.name}.tmp"))
    return ObjectStorage.open(url)


class Installation:
    """What services work on. `projection_pending` says that the tree lags behind the database after an error."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        self.settings = settings
        self.clock = clock
        self.layout: Layout = settings.layout
        self.projection_pending = False
        database_url = settings.database_url or sqlite_url(self.layout.database)
        self.database = Database(database_url)
        self.locks: Locks = (
            FileLocks(self.layout.locks)
            if self.database.is_sqlite
            else DatabaseLocks(open_engine(database_url, autocommit=True))
        )
        self.storage = _open_storage(settings)

    @classmethod
    def open(cls, settings: Settings, clock: Clock = system_clock) -> Installation:
        """An initialised data directory, its database brought to this version's form."""
        if not settings.layout.keys.is_dir():
            raise NotInitialisedError(
                f"{settings.data_dir} holds no repository", hint="make one: oscirc serve init --data DIR"
            )
        return cls._prepared(settings, clock)

    @classmethod
    def create(cls, settings: Settings, clock: Clock = system_clock) -> Installation:
        """A data directory that need not exist yet; only `initialising` calls this."""
        try:
            settings.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make {settings.data_dir}: {error.strerror}") from None
        return cls._prepared(settings, clock)

    @classmethod
    def _prepared(cls, settings: Settings, clock: Clock) -> Installation:
        installation = cls(settings, clock)
        try:
            with installation.locks.held(WRITER):
                installation.database.migrate()
        except BaseException:
            installation.close()
            raise
        return installation

    def now_s(self) -> int:
        """The time in whole seconds."""
        return int(self.clock())

    def close(self) -> None:
        """Close the database's connections and let go of every lock."""
        self.locks.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
