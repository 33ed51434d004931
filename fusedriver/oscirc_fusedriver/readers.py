"""What the driver needs of an image: the seam to `oscirc_remote.image`, and what a mount is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Reader(Protocol):
    """An image that can be read at any offset; safe for threads. `oscirc_remote.image.ImageReader` is one."""

    @property
    def size(self) -> int:
        """Bytes of the disk; constant."""

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Exactly `size` bytes, however long it takes within the reader's own deadline; raises `OscircError`."""

    def read_if_resident(self, offset: int, size: int) -> bytes | memoryview | None:
        """The same if this machine has the bytes, else None. Never waits for the network or for another read."""

    def on_block(self, arrived: Callable[[int, int], None]) -> None:
        """Have `arrived(offset, length)` called for blocks that come before they are asked for, from any thread."""

    def is_complete(self) -> bool:
        """Whether no read needs the network any more, as far as a bounded look tells."""

    def fail_reads(self, enabled: bool) -> None:
        """While on, reads that wait for the network fail at once, the outstanding ones too."""

    def retry_failed(self, timeout_s: float) -> bool:
        """Whether what a read could not have for want of the network can be had now; true where none failed so."""

    def status(self) -> object:
        """A frozen dataclass of what `status` shows."""

    def block_map(self, start: int) -> object:
        """A frozen dataclass of what the blocks from `start` on are: a bounded part. None where there is no map."""

    def close(self) -> None:
        """Release what the reader holds; reads that are under way may fail."""


@dataclass(frozen=True, slots=True)
class MountDescription:
    """What a mount shows, for its record; text only, so that this room needs no formats."""

    remote: str
    reference: str
    manifest_digest: str
    image: str
    version: str


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image that is ready to be served. `block_size` 0: unknown, no pages are pushed."""

    reader: Reader
    description: MountDescription
    block_size: int = 0


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to serve. `deadline_s` is the reader's own; the driver gives up `grace_s` later whatever the reader does.

    `direct_io` turns the page cache off, to see what a guest asks; `trace` is a file to record that in. With the page
    cache a trace holds first touches only; while it is recorded, for `trace_s` at most, no pages are pushed, since what
    is in the page cache already is not asked for.
    `read_ahead_kb` holds once the whole image is here, and needs root. `timestamp_s` is every file time: constant,
    because a change would drop the page cache. The first read, of two pages, gets `ready_timeout_s`, or what two reads
    may take.
    """

    allow_other: bool = False
    direct_io: bool = False
    push_pages: bool = True
    read_ahead_kb: int = 1024
    trace: Path | None = None
    trace_s: float | None = None
    deadline_s: float = 10
    grace_s: float = 2
    ready_timeout_s: float | None = None
    timestamp_s: int = 0

    @property
    def read_limit_s(self) -> float:
        """After how long a read is given up."""
        return self.deadline_s + self.grace_s

    @property
    def ready_limit_s(self) -> float:
        """After how long a mount that is not readable is given up."""
        return 2 * self.read_limit_s + 5 if self.ready_timeout_s is None else self.ready_timeout_s
