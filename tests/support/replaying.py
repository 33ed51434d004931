"""Reads blocks of a mounted disk one after the other, as a guest would, and notes how long the longest read took.

By `machine_time`: what the machine itself kept waiting is in `kept_waiting_s`, for those who measure otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import machine_time


@dataclass
class Replay:
    """One reader of a disk whose right content is known. Reads past the kernel's own read-ahead."""

    disk: Path
    content: bytes
    block_size: int
    worst_s: float = 0.0
    kept_waiting_s: float = 0.0
    wrong: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    done: int = 0

    def run(self, positions: Iterable[int], think: Callable[[int], None] = lambda _done: None) -> Replay:
        """Read these blocks; `think` is called before each read with the number of those done."""
        descriptor = os.open(self.disk, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            for position in positions:
                think(self.done)
                self._read(descriptor, position)
                self.done += 1
        finally:
            os.close(descriptor)
        return self

    def _read(self, descriptor: int, position: int) -> None:
        offset = position * self.block_size
        began, late_s = machine_time.clock(), machine_time.kept_waiting_s()
        try:
            raw = os.pread(descriptor, self.block_size, offset)
        except OSError:
            self.failed.append(position)
        else:
            if raw != self.content[offset : offset + self.block_size]:
                self.wrong.append(position)
        self.worst_s = max(self.worst_s, machine_time.clock() - began)
        self.kept_waiting_s = max(self.kept_waiting_s, machine_time.kept_waiting_s() - late_s)
