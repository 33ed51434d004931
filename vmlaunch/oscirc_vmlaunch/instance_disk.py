"""An instance's disk as a `ChangedDisk`: what its overlay holds, over the version that it was made on.

`opened` is the door; what it gives is for reading only, for as long as it is held:

1. The instance is stopped: its lock is taken, so it cannot be started meanwhile either, nor removed.
2. No QEMU writes to the overlay, and none can begin to: QEMU's own locks on it (bytes of the file, one for each
   permission; QEMU's block/file-posix.c) are taken as a reader takes them who shares the file with readers only.
3. The base is the one that the record names, by the digest of its manifest, and of the overlay's size.
4. `qemu-img check` has found nothing wrong with the container, which reads its map and no data.

The base is read where the overlay holds a part of a block only. Discarded ranges are zeros, as the guest reads them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from oscirc_blockstore.digests import Digest, digest_of
from oscirc_blockstore.disk_source import ByteRange, aligned
from oscirc_blockstore.errors import (
    BusyError,
    DeadlineExceededError,
    DiskRefusedError,
    DocumentRefusedError,
    LocalError,
    NotFoundError,
)
from oscirc_blockstore.manifest import Manifest
from oscirc_blockstore.table import NODE_SIZE, iterate_blocks
from oscirc_remote import ofd_locks
from oscirc_vmlaunch import overlays, programs
from oscirc_vmlaunch.instances import Instance
from oscirc_vmlaunch.overlay_map import ZEROS, OverlayMap

_CHECK_S = 600.0
_CHECK_DAMAGED, _CHECK_SOUND = 2, (0, 3)  # 3: clusters that nobody uses, which wastes room and hides nothing
# QEMU locks a byte for each permission that it uses, and one for each that it lets nobody else use.
_USED_FROM, _REFUSED_FROM = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3


class Base(Protocol):
    """The version below: its manifest, and what it holds, verified. Safe for threads."""

    manifest: Manifest

    def load(self, digest: Digest, raw_size: int) -> bytes:
        """A node or block by digest."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes, fewer only at the end of the disk."""

    def close(self) -> None:
        """Let go of it."""


class InstanceDisk:
    """The disk, for as long as `opened` holds what it reads. Counts the bytes that it took from the overlay."""

    def __init__(self, overlay: Path, descriptor: int, base: Base) -> None:
        self._path = overlay
        self._descriptor = descriptor
        self._base = base
        self._seen = self._look()
        self._map = OverlayMap(self._pread, os.fstat(descriptor).st_size)
        self._lock = threading.Lock()
        self.overlay_bytes_read = 0

    @property
    def base(self) -> Manifest:
        """The version that it was made on."""
        return self._base.manifest

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._map.disk_size

    def changed(self) -> Iterator[ByteRange]:
        """What the overlay holds, data and zeros."""
        return aligned((ByteRange(run.start, run.stop) for run in self._map.runs()), 1, self.size)

    def reads_as_zeros(self, offset: int, size: int) -> bool:
        """Whether the overlay says that all of these bytes are zeros: written so, or discarded."""
        run = next(self._map.runs(offset, offset + size), None)
        stop = min(offset + size, self.size)
        return run is not None and (run.start, run.stop, run.place) == (offset, stop, ZEROS)

    def held_bytes(self) -> tuple[int, int]:
        """How much the overlay holds: data, and ranges that it says are zeros."""
        data = zeros = 0
        for run in self._map.runs():
            if run.place == ZEROS:
                zeros += run.size
            else:
                data += run.size
        return data, zeros

    def extents(self) -> Iterator[ByteRange]:
        """What the base or the overlay hold, widened to blocks; reads the base's table."""
        geometry, root = self.base.geometry, self.base.root
        blocks = iterate_blocks(geometry, root, lambda node: self._base.load(node, NODE_SIZE))
        below = (ByteRange(at << geometry.shift, (at + 1) << geometry.shift) for at, _ in blocks)
        both = heapq.merge(below, self.changed(), key=lambda extent: extent.start)
        return aligned(both, geometry.block_size, self.size)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the disk as it is now, fewer only at its end."""
        stop = min(offset + size, self.size)
        parts: list[bytes] = []
        at, from_overlay = offset, 0
        for run in self._map.runs(offset, stop):
            if at < run.start:
                parts.append(self._base.read(at, run.start - at))
            if run.place == ZEROS:
                parts.append(bytes(run.size))
            else:
                parts.append(self._pread(run.place, run.size).ljust(run.size, b"\0"))
                from_overlay += run.size
            at = run.stop
        if at < stop:
            parts.append(self._base.read(at, stop - at))
        with self._lock:
            self.overlay_bytes_read += from_overlay
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_base(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the base, fewer only at the end of the disk."""
        return self._base.read(offset, size)

    def load_base(self, digest: Digest, raw_size: int) -> bytes:
        """A node or block of the base."""
        return self._base.load(digest, raw_size)

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` when the overlay is not what it was at opening."""
        if self._look() != self._seen:
            raise DiskRefusedError(f"{self._path} changed while it was read", hint="what writes to it?")

    def close(self) -> None:
        """Nothing of its own: file, locks and base belong to `opened`."""

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _pread(self, offset: int, size: int) -> bytes:
        raw = b""
        try:
            while len(raw) < size:
                more = os.pread(self._descriptor, size - len(raw), offset + len(raw))
                if not more:
                    break
                raw += more
        except OSError as error:
            raise LocalError(f"cannot read {self._path}: {error.strerror}") from None
        return raw


@contextlib.contextmanager
def opened(instance: Instance, base: Base) -> Iterator[InstanceDisk]:
    """The instance's disk, for as long as the block lasts; see the module's rules. `base` is closed in any case.

    Raises `BusyError` while somebody uses it, `UsageError` where `base` is not what the instance was made on, and
    `DocumentRefusedError` or `DiskRefusedError` for an overlay that cannot be used.
    """
    with contextlib.closing(base), instance.lock():
        instance = instance.reloaded()
        overlays.check_base(
            instance=instance.name,
            recorded_digest=instance.record.manifest_digest,
            offered_digest=digest_of(base.manifest.serialise()).hex(),
        )
        overlays.check(
            instance.overlay,
            size_bytes=base.manifest.geometry.disk_size,
            manifest_digest=instance.record.manifest_digest,
        )
        with _held(instance) as descriptor:
            _check_container(instance.overlay)
            yield InstanceDisk(instance.overlay, descriptor, base)


@contextlib.contextmanager
def _held(instance: Instance) -> Iterator[int]:
    """The overlay, open for reading, with QEMU's locks on it."""
    try:
        descriptor = os.open(instance.overlay, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFoundError(f"there is no overlay at {instance.overlay}") from None
    except OSError as error:
        raise LocalError(f"cannot open {instance.overlay}: {error.strerror}") from None
    try:
        _lock_as_reader(descriptor, instance)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_as_reader(descriptor: int, instance: Instance) -> None:
    """As QEMU opens a file that others may read and nobody may write; first the locks, then the look (as QEMU does)."""
    shared = ofd_locks.SHARED
    mine = (_USED_FROM + _READ, _REFUSED_FROM + _WRITE, _REFUSED_FROM + _RESIZE)
    against = (_REFUSED_FROM + _READ, _USED_FROM + _WRITE, _USED_FROM + _RESIZE)
    try:
        taken = all(ofd_locks.take(descriptor, shared, at, 1) for at in mine)
        if taken and not any(ofd_locks.is_held(descriptor, at, 1) for at in against):
            return
    except OSError:
        return  # a file system without locks: QEMU works without them there too
    raise BusyError(
        f"the disk of {instance.name} is in use by another QEMU",
        hint="end what uses it: an instance that was exported, or a qemu program started by hand",
    )


def _check_container(overlay: Path) -> None:
    """Have `qemu-img check` walk the map, without the disk below."""
    file = {"driver": "file", "filename": str(overlay)}
    image = "json:" + json.dumps({"driver": "qcow2", "backing": None, "file": file})
    argv = [str(programs.find_qemu_img()), "check", "-q", image]
    outcome = asyncio.run(programs.run(argv, deadline_s=_CHECK_S))
    if outcome.returncode is None:
        raise DeadlineExceededError(f"checking the overlay {overlay} did not end in {_CHECK_S:g} s")
    if outcome.returncode == _CHECK_DAMAGED:
        raise DocumentRefusedError(f"the overlay {overlay} is damaged", hint=f"qemu-img check {overlay} says more")
    if outcome.returncode not in _CHECK_SOUND:
        raise LocalError(f"qemu-img cannot read the overlay: {outcome.output.strip()[-300:] or 'no reason given'}")
