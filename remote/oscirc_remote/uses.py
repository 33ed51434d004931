"""Which images are in use on this machine: a file for each manifest, with a lock that lasts as long as a process.

`<cache>/uses/<manifest digest>` holds the manifest. Every mount and pull holds a shared open-file-description lock on
it (fcntl(2)), which the kernel drops when its holder dies; a file that nobody has locked is a leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oscirc_blockstore.digests import digest_of, parse_hex
from oscirc_blockstore.errors import DocumentRefusedError, IntegrityError
from oscirc_blockstore.manifest import MAX_MANIFEST_BYTES, Manifest, parse_verified

DIRECTORY = "uses"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux: type, whence, start, len, pid


@contextmanager
def using(cache_directory: Path, manifest: Manifest) -> Iterator[None]:
    """What this manifest needs is not evicted until the end. Where locks do not work it is as if nobody evicted."""
    raw = manifest.serialise()
    descriptor = _hold(cache_directory / DIRECTORY / digest_of(raw).hex(), raw)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _hold(path: Path, raw: bytes) -> int:
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(10):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if _lock(descriptor, fcntl.F_RDLCK) and _is_at(descriptor, path):
                if os.fstat(descriptor).st_size != len(raw):
                    os.pwrite(descriptor, raw, 0)
                    os.ftruncate(descriptor, len(raw))
                return descriptor
            os.close(descriptor)  # an evictor removed it as a leftover: again
    return -1


def used(cache_directory: Path) -> list[Manifest]:
    """The manifests that somebody uses now; leftovers are removed."""
    found = []
    directory = cache_directory / DIRECTORY
    if not directory.is_dir():
        return []
    for path in sorted(directory.iterdir()):
        with contextlib.suppress(OSError, DocumentRefusedError, IntegrityError):
            digest = parse_hex(path.name)
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.F_WRLCK):
                    path.unlink()
                    continue
                found.append(parse_verified(os.pread(descriptor, MAX_MANIFEST_BYTES + 1, 0), digest))
            finally:
                os.close(descriptor)
    return found


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        here, there = os.fstat(descriptor), path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
