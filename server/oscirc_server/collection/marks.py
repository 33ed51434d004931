"""The digests that something needs, on disk in 256 files by their first byte; one of them is in memory at a time.

At 40 million blocks a part is a set of 160,000 digests, some 16 MiB, whatever the number of versions that share them:
what is added twice is told apart only when a part is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from oscirc_blockstore.digests import DIGEST_SIZE, Digest
from oscirc_blockstore.errors import LocalError

PARTS = 256
_BUFFER_BYTES = 64 << 10


class Marks:
    """In a directory of its own, which is removed before and after; not safe for threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._buffers = [bytearray() for _ in range(PARTS)]

    def __enter__(self) -> Self:
        try:
            shutil.rmtree(self._directory, ignore_errors=True)  # what a crash left
            self._directory.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise LocalError(f"cannot make {self._directory}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def add(self, digests: Iterable[bytes]) -> None:
        """Something needs these."""
        buffers = self._buffers
        for digest in digests:
            buffer = buffers[digest[0]]
            buffer += digest
            if len(buffer) >= _BUFFER_BYTES:
                self._flush(digest[0])

    def part(self, number: int) -> set[Digest]:
        """Those whose first byte is `number`."""
        self._flush(number)
        try:
            raw = self._path(number).read_bytes()
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise LocalError(f"cannot read {self._path(number)}: {error.strerror}") from None
        return {Digest(raw[at : at + DIGEST_SIZE]) for at in range(0, len(raw), DIGEST_SIZE)}

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:02x}"

    def _flush(self, number: int) -> None:
        buffer = self._buffers[number]
        if not buffer:
            return
        try:
            with self._path(number).open("ab") as file:
                file.write(buffer)
        except OSError as error:
            raise LocalError(f"cannot write {self._path(number)}: {error.strerror}") from None
        buffer.clear()
