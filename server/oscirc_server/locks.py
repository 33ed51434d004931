"""Named locks among the threads and processes of one repository; gone with their holder, however that ends.

`held(name)` waits, `try_held(name)` does not; neither is reentrant. The names: `writer` (whoever changes metadata or
writes the tree's changing files), `collector`, `resigner`, `job:<id>`. One after the other is taken in that order;
`resigner` is only ever tried, by whoever then asks for `writer`.

- Beside SQLite all processes are on one machine: a lock is a byte of one file (an open-file-description lock), which
  the kernel releases with its holder.
- Beside PostgreSQL a lock is an advisory lock of a session kept for it alone. A lost connection releases it at once,
  while the holder may go on unawares: whoever is about to do what only the holder may do asks `confirm` first, which
  raises `SupersededError` where the lock is lost. It also does where a pooler between the two hands sessions around.

`claimed` is for many at once, the digests of blocks that are being stored: locks that digests share, held for moments.

Threads of a process queue for a name before its processes do, so a process has at most one connection per name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_remote import ofd_locks
from oscirc_server.errors import SupersededError

WRITER = "writer"
COLLECTOR = "collector"
RESIGNER = "resigner"
WAIT_S = 60.0

_FIRST_POLL_S = 0.001
_LONGEST_POLL_S = 0.02
_FILE_BYTES = 7  # 56 bits: the greatest whole number of bytes that fits a signed file offset
_STRIPES = 1024  # a batch of tiny blocks must not fill the table of locks that all share
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's SQLSTATE after lock_timeout

_log = logging.getLogger(__name__)


class Held(Protocol):
    """A lock that is held, as far as its holder knows."""

    def confirm(self) -> None:
        """Raise `SupersededError` when it is held no longer."""


class Locks(Protocol):
    """The seam."""

    def held(self, name: str, wait_s: float = WAIT_S) -> AbstractContextManager[Held]:
        """Hold it; `BusyError` when it is not to be had in time."""

    def try_held(self, name: str) -> AbstractContextManager[Held | None]:
        """Hold it, or None at once where somebody else does."""

    def claimed(self, digests: Iterable[bytes]) -> AbstractContextManager[None]:
        """Keep others who claim one of these from it meanwhile; `BusyError` when they are not to be had in time."""

    def close(self) -> None:
        """Let go of files and connections; nobody holds a lock any more."""


def _stripes(digests: Iterable[bytes]) -> list[int]:
    """The few locks that many digests share, in the one order in which everybody takes them."""
    return sorted({int.from_bytes(digest[:2], "big") % _STRIPES for digest in digests})


class _Queues:
    """A lock among this process's threads for each name that is in use."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._by_name: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()

    @contextlib.contextmanager
    def turn(self, name: str, wait_s: float) -> Iterator[bool]:
        """Whether this thread's turn came in time."""
        with self._guard:
            queue = self._by_name.get(name)
            if queue is None:
                queue = self._by_name[name] = threading.Lock()
        taken = queue.acquire(timeout=wait_s) if wait_s > 0 else queue.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                queue.release()


def _number(name: str, length_bytes: int) -> int:
    return int.from_bytes(hashlib.sha256(f"oscirc lock {name}".encode()).digest()[:length_bytes], "big")


def _signed(name: str) -> int:
    return _number(name, 8) - (1 << 63)


def _busy(name: str) -> BusyError:
    what = "changing the repository" if name == WRITER else f"holding the lock {name!r}"
    return BusyError(f"another request or process has been {what} for too long", hint="try again")


class _ByName(ABC):
    """What both kinds make of `_holding`."""

    @abstractmethod
    def _holding(self, name: str, wait_s: float) -> AbstractContextManager[Held | None]:
        """Hold it, or None where it is not to be had in time."""

    @contextlib.contextmanager
    def held(self, name: str, wait_s: float = WAIT_S) -> Iterator[Held]:
        """See `Locks`."""
        with self._holding(name, wait_s) as held:
            if held is None:
                raise _busy(name)
            yield held

    def try_held(self, name: str) -> AbstractContextManager[Held | None]:
        """See `Locks`."""
        return self._holding(name, 0)


class _Kept:
    """A lock that nothing but its holder can end."""

    def confirm(self) -> None:
        """See `Held`: the kernel keeps it as long as this process lives."""


class FileLocks(_ByName):
    """Bytes of one file; for processes of one machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queues = _Queues()
        self._guard = threading.Lock()
        self._descriptor = -1

    def _opened(self) -> int:
        with self._guard:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._descriptor

    def _taken(self, at: int, wait_s: float) -> bool:
        until_s, pause_s = time.monotonic() + wait_s, _FIRST_POLL_S
        while not ofd_locks.take(self._opened(), ofd_locks.EXCLUSIVE, at, 1):
            if time.monotonic() >= until_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_POLL_S)
        return True

    @contextlib.contextmanager
    def _holding(self, name: str, wait_s: float) -> Iterator[Held | None]:
        at = _number(name, _FILE_BYTES)
        with self._queues.turn(name, wait_s) as mine:
            try:
                held = mine and self._taken(at, wait_s)
            except OSError as error:
                raise LocalError(f"cannot lock {self._path}: {error.strerror}") from None
            try:
                yield _Kept() if held else None
            finally:
                if held:
                    ofd_locks.take(self._opened(), ofd_locks.NONE, at, 1)

    @contextlib.contextmanager
    def claimed(self, digests: Iterable[bytes]) -> Iterator[None]:
        """See `Locks`."""
        with contextlib.ExitStack() as stack:
            for stripe in _stripes(digests):
                stack.enter_context(self.held(f"claim:{stripe}"))
            yield

    def close(self) -> None:
        """See `Locks`."""
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


class _Session:
    """A lock that a session of PostgreSQL holds."""

    _OWN = text(
        "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
        " AND classid = :high AND objid = :low AND objsubid = 1)"
    )

    def __init__(self, connection: Connection, name: str, key: int) -> None:
        self._connection = connection
        self._name = name
        unsigned = key & 0xFFFF_FFFF_FFFF_FFFF
        self._place = {"high": unsigned >> 32, "low": unsigned & 0xFFFF_FFFF}
        self._asking = threading.Lock()

    def confirm(self) -> None:
        """See `Held`."""
        try:
            with self._asking:
                if self._connection.scalar(self._OWN, self._place):
                    return
        except SQLAlchemyError as error:
            _log.warning("the connection that held a lock is lost", extra={"lock": self._name, "error": str(error)})
        raise SupersededError(f"this process holds the lock {self._name!r} no longer", hint="try again")


class DatabaseLocks(_ByName):
    """Advisory locks of PostgreSQL; for processes of any machine."""

    def __init__(self, engine: Engine) -> None:
        """`engine`: with autocommit and connections for nothing else."""
        self._engine = engine
        self._queues = _Queues()

    @staticmethod
    def _taken(connection: Connection, keys: Sequence[int], wait_s: float) -> bool:
        if wait_s <= 0:
            return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": keys[0]}))
        wait = {"wait": f"{max(1, int(wait_s * 1000))}ms", "keys": list(keys)}
        connection.execute(text("SELECT set_config('lock_timeout', :wait, false)"), wait)
        try:
            connection.execute(text("SELECT pg_advisory_lock(k) FROM unnest(CAST(:keys AS bigint[])) AS k"), wait)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                connection.execute(text("SELECT pg_advisory_unlock_all()"))  # of several, the first may have been had
                return False
            raise
        return True

    @contextlib.contextmanager
    def _holding(self, name: str, wait_s: float) -> Iterator[Held | None]:
        key = _signed(name)
        with self._queues.turn(name, wait_s) as mine:
            if not mine:
                yield None
                return
            with self._engine.connect() as connection:
                if not self._taken(connection, [key], wait_s):
                    yield None
                    return
                try:
                    yield _Session(connection, name, key)
                finally:
                    self._release(connection, [key])

    @staticmethod
    def _release(connection: Connection, keys: Sequence[int]) -> None:
        unlock = text("SELECT bool_and(pg_advisory_unlock(k)) FROM unnest(CAST(:keys AS bigint[])) AS k")
        try:
            released = connection.scalar(unlock, {"keys": list(keys)})
        except SQLAlchemyError:
            released = False
        if not released:
            connection.invalidate()  # whatever this session holds ends with it

    @contextlib.contextmanager
    def claimed(self, digests: Iterable[bytes]) -> Iterator[None]:
        """See `Locks`: one statement takes all of them, in order."""
        keys = [_signed(f"claim:{stripe}") for stripe in _stripes(digests)]
        with self._engine.connect() as connection:
            if not self._taken(connection, keys, WAIT_S):
                raise _busy("claim")
            try:
                yield
            finally:
                self._release(connection, keys)

    def close(self) -> None:
        """See `Locks`."""
        self._engine.dispose()
