"""Writes what a guest reads to a trace file (`oscirc_blockstore.trace`) while it is served.

Lines are gathered and written now and then, from the thread that serves reads: a write to a local file every few
thousand reads. A file that cannot be written ends the recording, never a read; `problem` says why, and the trace then
lacks its last line (`trace.ends`). It is bounded.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from oscirc_blockstore.errors import LocalError
from oscirc_blockstore.trace import END_LINE, MAX_READS, TracedRead, TraceHead

_GATHERED = 1000
_FLUSH_S = 1.0


class Recorder:
    """Records into a new file at `path`; raises `LocalError` when that cannot be made or is there already."""

    def __init__(self, path: Path, head: TraceHead) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"cannot make the trace {path}: {error.strerror}") from None
        self.reads = 0
        self.problem = ""
        self._lines = [str(head)]
        self._started = self._written = time.monotonic()
        self._write()

    def note(self, offset: int, length: int) -> None:
        """A read arrived."""
        if self._descriptor < 0:
            return
        now = time.monotonic()
        self._lines.append(str(TracedRead(offset, length, int(1000 * (now - self._started)))))
        self.reads += 1
        if len(self._lines) >= _GATHERED or now > self._written + _FLUSH_S:
            self._write()
        if self.reads >= MAX_READS:
            self.problem = f"the recording ended after {MAX_READS} reads"
            self._write()
            self._end()

    def _write(self) -> None:
        raw, self._lines = "".join(self._lines).encode(), []
        self._written = time.monotonic()
        try:
            while raw:
                raw = raw[os.write(self._descriptor, raw) :]
        except OSError as error:
            self.problem = f"the recording ended: {error.strerror}"
            self._end()

    @property
    def ended(self) -> bool:
        """Whether nothing is recorded any more, for whatever reason."""
        return self._descriptor < 0

    def close(self) -> None:
        """Write what is left and close the file; what is read from now on is not recorded."""
        if self._descriptor >= 0:
            self._lines.append(END_LINE)
            self._write()
        self._end()

    def _end(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
