"""The bytes of a bundle, from whichever mirror is asked now: one download at a time, aimed at a range of the file.

A download's pace is told to the mirrors when it ends, whichever way, so that streams count in their standing.
"""

from __future__ import annotations

from typing import Protocol

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.errors import NotServedError, OscircError, UnreachableError
from oscirc_remote.downloads import Download

SILENCE_S = 30.0


class StreamMirrors(Protocol):
    """Where bundles come from."""

    def open(self, accelerator: Accelerator, start: int, stop: int, skip: frozenset[str]) -> Download | None:
        """A download from the best mirror that is not to be skipped; None when none is left."""

    def report(self, name: str, problem: OscircError | None, *, received_bytes: int = 0, seconds: float = 0.0) -> None:
        """How a download went, and what came of it in that time."""


class NobodyLeft(Exception):  # noqa: N818  # not an error of anybody's: the round over the mirrors is done
    """Every mirror was tried in this round."""


class BundleFeed:
    """Gives a bundle's bytes in order, as a `segment.ByteSource`. One thread; `close` from any."""

    def __init__(self, accelerator: Accelerator, mirrors: StreamMirrors, early: Download | None) -> None:
        self._accelerator = accelerator
        self._mirrors = mirrors
        self._download = early
        self._rest = b""  # bytes that came and were not asked for yet
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether a download is under way."""
        return self._download is not None

    @property
    def source(self) -> str:
        """The mirror that is asked now, or nothing."""
        return "" if self._download is None else self._download.source

    @property
    def received_bytes(self) -> int:
        """What the download that is under way has brought."""
        return 0 if self._download is None else self._download.received_bytes

    def reaches(self, stop: int) -> bool:
        """Whether the download that is under way goes on at least until there."""
        return self._download is not None and stop <= self._download.stop

    def aim(self, start: int, stop: int, skip: frozenset[str]) -> None:
        """End the present download and begin the one of these bytes, from a mirror that is not to be skipped.

        Raises `NobodyLeft` when there is none.
        """
        self.end()
        if stop > start and not self._closed:
            self._download = self._mirrors.open(self._accelerator, start, stop, skip)
            if self._download is None:
                raise NobodyLeft
            if self._closed:  # in between
                self._download.close()

    def read(self, size: int) -> bytes:
        """The next bytes; raises what the download does, and `NotServedError` where its file ends too early."""
        piece = self._next_piece()
        if len(piece) > size:
            piece, self._rest = piece[:size], piece[size:]
        return piece

    def take(self, size: int) -> bytes:
        """Exactly so many of the next bytes."""
        pieces, left = [], size
        while left:
            piece = self.read(left)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _next_piece(self) -> bytes:
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        if self._download is None:
            raise UnreachableError("nobody is asked for this bundle now")
        piece = self._download.read(SILENCE_S)
        if not piece:  # a connection that breaks is an error of the download's own
            raise NotServedError(f"{self._download.source} has less of a bundle than was asked for")
        return piece

    def end(self, problem: OscircError | None = None) -> None:
        """End the download, for this reason if it is its mirror's fault."""
        download, self._download, self._rest = self._download, None, b""
        if download is None:
            return
        download.close()
        received_bytes, seconds = download.pace()
        self._mirrors.report(download.source, problem, received_bytes=received_bytes, seconds=seconds)

    def close(self) -> None:
        """Let what reads fail soon; from any thread."""
        self._closed = True
        download = self._download
        if download is not None:
            download.close()
