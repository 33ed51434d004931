"""Which images are in use on this machine: a file for each manifest, with a lock that lasts as long as a process.

`<cache>/uses/<manifest digest>` holds the manifest. Every mount and pull holds a shared open-file-description lock on
it (fcntl(2)), which the kernel drops when its holder dies. A file that nobody has locked says by its modification time
when the image was last used: an evictor reads that and removes it.

The gate, `<cache>/uses.lock`, is held shared while a use or a pin is being made, exclusively while a batch of files is
removed. So from the moment that `using` has begun, nothing that its image needs goes, whatever an evictor had in mind.
Nobody waits long for it: a holder that was stopped in the middle must not stop a mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore.digests import Digest, digest_of, parse_hex
from oscirc_blockstore.errors import BusyError, DocumentRefusedError, IntegrityError, LocalError
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, parse_verified
from oscirc_remote import ofd_locks
from oscirc_remote.deadlines import Deadline

log = logging.getLogger(__name__)

DIRECTORY = "uses"
GATE_FILE = "uses.lock"
GATE_S = 2.0
_TRIES_APART_S = 0.005


@dataclass(frozen=True, slots=True)
class EndedUse:
    """An image that nobody uses now, and until when somebody did (Unix time)."""

    digest: Digest
    manifest: Manifest | None
    last_used: float


@contextmanager
def using(cache_directory: Path, manifest: Manifest) -> Iterator[None]:
    """What this manifest needs is not evicted until the end; where that cannot be had, it is said in the log."""
    raw = manifest.serialise()
    path = cache_directory / DIRECTORY / digest_of(raw).hex()
    descriptor = -1
    try:
        with registering(cache_directory):
            descriptor = _hold(path, raw)
    except (OSError, LocalError) as error:
        log.warning("the cache may evict what is in use: %s", error)
    try:
        yield
    finally:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            os.close(descriptor)


@contextmanager
def registering(cache_directory: Path) -> Iterator[None]:
    """Around the making of a pin or a use: no batch of files is removed meanwhile. Goes on without after a while."""
    with _gate(cache_directory, fcntl.LOCK_SH):
        yield


@contextmanager
def evicting(cache_directory: Path) -> Iterator[None]:
    """Around the removal of a batch of files: whatever was in use or pinned at its beginning is known to be.

    Raises `BusyError` when somebody holds the gate for long.
    """
    with _gate(cache_directory, fcntl.LOCK_EX) as got:
        if not got:
            raise BusyError("another process keeps the cache's uses locked", hint="try again in a moment")
        yield


@contextmanager
def _gate(cache_directory: Path, kind: int) -> Iterator[bool]:
    path = cache_directory / GATE_FILE
    try:
        cache_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LocalError(f"cannot lock {path}: {error.strerror}") from None
    try:
        yield _flock(descriptor, kind)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    deadline, never = Deadline.after(GATE_S), threading.Event()
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            if deadline.remaining_s() <= 0:
                return False
            never.wait(_TRIES_APART_S)
        else:
            return True


def _hold(path: Path, raw: bytes) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _share(descriptor, path)
            if _is_at(descriptor, path):
                if os.pread(descriptor, len(raw) + 1, 0) != raw:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, raw, 0)
                os.utime(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # somebody who did not wait for the gate removed it as ended: again


def _share(descriptor: int, path: Path) -> None:
    if not ofd_locks.take(descriptor, ofd_locks.SHARED):
        raise LocalError(f"{path} is locked by somebody else")


def used(cache_directory: Path) -> list[Manifest]:
    """The manifests that somebody uses now; raises `LocalError` where one of them cannot be read.

    Notes when they were, for those whose user will be killed rather than end.
    """
    found = []
    for path, digest in _files(cache_directory):
        with _opened(path) as descriptor:
            if descriptor >= 0 and ofd_locks.is_held(descriptor):
                manifest = _read(descriptor, digest)
                if manifest is None:
                    raise LocalError(f"what is in use by {path} cannot be read", hint="unmount it, and mount it again")
                with contextlib.suppress(OSError):
                    os.utime(descriptor)
                found.append(manifest)
    return found


def ended(cache_directory: Path) -> list[EndedUse]:
    """The uses that ended and were not forgotten yet."""
    found = []
    for path, digest in _files(cache_directory):
        with _opened(path) as descriptor:
            if descriptor >= 0 and not ofd_locks.is_held(descriptor):
                found.append(EndedUse(digest, _read(descriptor, digest), os.fstat(descriptor).st_mtime))
    return found


def forget(cache_directory: Path, use: EndedUse) -> None:
    """Remove the file of a use that ended, unless it has begun again; to be called while `evicting`."""
    path = cache_directory / DIRECTORY / use.digest.hex()
    with _opened(path) as descriptor:
        if descriptor >= 0 and not ofd_locks.is_held(descriptor) and os.fstat(descriptor).st_mtime == use.last_used:
            with contextlib.suppress(OSError):
                path.unlink()


def _files(cache_directory: Path) -> Iterator[tuple[Path, Digest]]:
    try:
        paths = sorted((cache_directory / DIRECTORY).iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(f"cannot look at {cache_directory / DIRECTORY}: {error.strerror}") from None
    for path in paths:
        with contextlib.suppress(DocumentRefusedError):
            yield path, parse_hex(path.name)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError as error:  # somebody else's, who may be using it
        raise LocalError(f"{path} cannot be read: {error.strerror}", hint="a cache belongs to one user") from None
    except OSError:
        yield -1  # it was removed just now, or is no file
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int, digest: Digest) -> Manifest | None:
    try:
        return parse_verified(os.pread(descriptor, MAX_MANIFEST_BYTES + 1, 0), digest)
    except (OSError, DocumentRefusedError, IntegrityError):
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
