"""A disk in a container (qcow2, vmdk, vdi, vhdx): judged, checked whole, then read through QEMU's own driver.

- The header is judged first, by the rules of its format (`qcow2`, `vmdk`, `vdi`, `vhdx`), on the very file that QEMU
  is then handed as an open descriptor.
- The container's map is checked before anything is read: QEMU reads what a truncated file lacks as zeros, and half a
  download must not be published as a disk.
- Allocation comes from the container's own map: ranges that read as zeros are never asked for.
- Only the current state is read; internal snapshots are not published.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Literal, get_args

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DiskRefusedError
from oscirc_publisher import qcow2, vdi, vhdx, vmdk
from oscirc_publisher.nbd import MAX_READ_BYTES, MAX_STATUS_BYTES, NbdConnection
from oscirc_publisher.opened_file import OpenedFile, check_disk_size
from oscirc_publisher.qemu_tools import NbdServer, check_container

ContainerFormat = Literal["qcow2", "vmdk", "vdi", "vhdx"]
CONTAINER_FORMATS: tuple[ContainerFormat, ...] = get_args(ContainerFormat)

_MAX_CONNECTIONS = 16

JUDGES: dict[ContainerFormat, Callable[[OpenedFile], int]] = {
    "qcow2": lambda opened: qcow2.check_header(opened.read(0, qcow2.HEADER_BYTES), opened.size),
    "vmdk": lambda opened: vmdk.check(opened.read, opened.size),
    "vdi": lambda opened: vdi.check(opened.read, opened.size),
    "vhdx": lambda opened: vhdx.check(opened.read, opened.size).size,
}
"""The size in bytes that a sound container states, or `DiskRefusedError`."""


class ContainerDisk:
    """The disk inside a container; takes `opened` over. Reads from up to 16 threads run side by side."""

    def __init__(self, opened: OpenedFile, form: ContainerFormat) -> None:
        self._file = opened
        self.form = form
        self._size = check_disk_size(JUDGES[form](opened), f"the disk in {opened.path}")
        check_container(opened.descriptor, form)
        self._server = NbdServer(opened.descriptor, _MAX_CONNECTIONS + 1, form)
        self._idle: queue.LifoQueue[NbdConnection] = queue.LifoQueue()
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        try:
            self._lifeline = self._server.connect()
        except BaseException:
            self._server.end()
            raise
        if self._lifeline.export_size != self._size:
            self.close()
            raise DiskRefusedError(
                f"QEMU finds a disk of {self._lifeline.export_size} bytes where the header states {self._size}"
            )

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self._size

    def extents(self) -> Iterator[ByteRange]:
        """What the container does not map to zeros."""
        if self.form == "vhdx":
            for start, stop in vhdx.data_ranges(self._file.read, vhdx.check(self._file.read, self._file.size)):
                yield ByteRange(start, stop)
            return
        offset = 0
        while offset < self._size:
            with self._connection() as connection:
                found = connection.status(offset, min(MAX_STATUS_BYTES, self._size - offset))
            for allocation in found:
                if not allocation.zero:
                    yield ByteRange(offset, offset + allocation.size)
                offset += allocation.size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the disk."""
        stop = min(offset + size, self._size)
        with self._connection() as connection:
            parts = [
                connection.read(start, min(MAX_READ_BYTES, stop - start))
                for start in range(offset, stop, MAX_READ_BYTES)
            ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check_unchanged(self) -> None:
        """Raise `DiskRefusedError` when the container's file is not what it was at opening."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Ends QEMU and removes its directory; idempotent."""
        self._lifeline.close()
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                break
        self._server.end()
        self._file.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[NbdConnection]:
        """A connection of one's own; one that failed in use is not used again."""
        with self._free:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._server.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.put(connection)
