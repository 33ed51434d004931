"""A disk that is a released version and changes to it: the seam between an instance and the building of a table.

What is outside of `changed` is as in the base, block for block, so its digests are the base's and its bytes are not
read. Ranges in `changed` may be of any size and stand anywhere; what is inside of them may be as in the base all the
same (a block that was written with what it held).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.disk_source import ByteRange, DiskSource
from oscirc_blockstore.manifest import Manifest


@runtime_checkable
class ChangedDisk(DiskSource, Protocol):
    """A disk as it is now, and the version that it was made on, whose size it has. Safe to read from several threads.

    Its `extents`, for whoever does not care about the base, are those of both.
    """

    @property
    def base(self) -> Manifest:
        """The version."""

    def changed(self) -> Iterator[ByteRange]:
        """Ascending, non-overlapping ranges that may differ from the base, those that read as zeros included."""

    def reads_as_zeros(self, offset: int, size: int) -> bool:
        """Whether all of these bytes are known to be zeros without being read; False where that is not known."""

    def read_base(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the version, verified (fewer only at its end)."""

    def load_base(self, digest: Digest, raw_size: int) -> bytes:
        """A node or block of the base, verified."""
