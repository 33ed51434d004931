"""A qcow2 container as a disk: QEMU's own driver reads it, in a process that can reach nothing else.

- The header is judged first (`qcow2.check_header`), on the very file that is then handed over as an open descriptor;
  QEMU is told the driver and `backing: null`, so nothing is probed and nothing is followed.
- `qemu-nbd` runs read-only under limits (no new privileges, no core, no file writes, bounded memory and descriptors),
  in a session of its own (Ctrl-C reaches us, not it), on a socket in a directory that only this user can enter.
- It ends with its last connection, and one is held for the disk's whole life: when this process dies by any
  means, the kernel closes that connection and QEMU goes too.
- Allocation comes from the container's own map: ranges that read as zeros are never asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DeadlineExceededError, DiskRefusedError, LocalError, MissingProgramError
from oscirc_publisher.nbd import MAX_READ_BYTES, MAX_STATUS_BYTES, NbdConnection
from oscirc_publisher.opened_file import OpenedFile, check_disk_size
from oscirc_publisher.qcow2 import HEADER_BYTES, check_header

_PROGRAM = "qemu-nbd"
_START_TIMEOUT_S = 20.0
_END_TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 16
_LIMITS = ("--as=4294967296", "--core=0", "--fsize=0", "--nofile=128")


class Qcow2Disk:
    """The disk inside a container; takes `opened` over. Reads from up to 16 threads run side by side."""

    def __init__(self, opened: OpenedFile) -> None:
        self._file = opened
        stated = check_header(opened.read(0, HEADER_BYTES), opened.size)
        self._size = check_disk_size(stated, f"the disk in {opened.path}")
        self._process = _Server(opened.descriptor)
        self._idle: queue.LifoQueue[NbdConnection] = queue.LifoQueue()
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        try:
            self._lifeline = self._process.connect()
        except BaseException:
            self._process.end()
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
        self._process.end()
        self._file.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[NbdConnection]:
        """A connection of one's own; one that failed in use is not used again."""
        with self._free:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                connection = self._process.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.put(connection)


class _Server:
    """One `qemu-nbd` over an open file."""

    def __init__(self, descriptor: int) -> None:
        if shutil.which(_PROGRAM) is None:
            raise MissingProgramError(
                "reading a qcow2 needs qemu-nbd, which is not installed", hint="apt-get install qemu-utils"
            )
        node = {
            "driver": "qcow2",
            "backing": None,
            "file": {"driver": "file", "filename": f"/proc/self/fd/{descriptor}"},
        }
        self._directory = Path(tempfile.mkdtemp(prefix="oscirc-nbd-"))  # mode 0700
        self._socket = self._directory / "socket"
        try:
            self._process = subprocess.Popen(
                [
                    *_confinement(),
                    *(_PROGRAM, "--read-only", f"--shared={_MAX_CONNECTIONS + 1}", "--socket", str(self._socket)),
                    f"json:{json.dumps(node)}",
                ],
                pass_fds=(descriptor,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd=self._directory,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def connect(self) -> NbdConnection:
        """A new connection; waits for a server that is still starting."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.connect(str(self._socket))
            except OSError:
                connected.close()
            else:
                return NbdConnection(connected)
            if self._process.poll() is not None:
                raise LocalError(f"QEMU cannot open the container: {self._words()}")
            if time.monotonic() > deadline:
                raise DeadlineExceededError("qemu-nbd did not start in time")
            time.sleep(0.005)

    def end(self) -> None:
        """Waits for the end that the last connection's end brings, then insists; idempotent."""
        for sent in (None, signal.SIGTERM, signal.SIGKILL):
            if sent is not None:
                self._process.send_signal(sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
                break
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _words(self) -> str:
        words = b"" if self._process.stderr is None else self._process.stderr.read(2000)
        return " ".join(words.decode(errors="replace").split()).removeprefix("qemu-nbd: ") or "no reason given"


def _confinement() -> list[str]:
    """What stands before the command: util-linux's own tools, where they are installed."""
    prefix: list[str] = []
    if shutil.which("setpriv"):
        prefix += ["setpriv", "--no-new-privs"]
    if shutil.which("prlimit"):
        prefix += ["prlimit", *_LIMITS]
    return prefix
