"""A disk on this machine as a `Reader`: to record what boots from it before it is published."""

from __future__ import annotations

from collections.abc import Callable

from oscirc_blockstore.disk_source import DiskSource


class LocalReader:
    """Reads `disk`, which it owns and closes. Everything is resident: reads block for the local disk only."""

    def __init__(self, disk: DiskSource) -> None:
        self._disk = disk

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._disk.size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; raises `LocalError`."""
        return self._disk.read(offset, size)

    def read_if_resident(self, offset: int, size: int) -> bytes:
        """The same."""
        return self._disk.read(offset, size)

    def on_block(self, arrived: Callable[[int, int], None]) -> None:
        """Nothing comes before it is asked for."""

    def is_complete(self) -> bool:
        """It is all here."""
        return True

    def fail_reads(self, enabled: bool) -> None:
        """Nothing waits."""

    def retry_failed(self, timeout_s: float) -> bool:  # noqa: ARG002  # the seam's
        """Nothing fails for want of a network."""
        return True

    def status(self) -> object:
        """Nothing to tell."""
        return None

    def block_map(self, start: int) -> object:  # noqa: ARG002  # the seam's
        """Nothing to draw."""
        return None

    def close(self) -> None:
        """Close the disk."""
        self._disk.close()
