"""What a mirror reads from: verified metadata, documents by digest, block files, accelerators. Fails over by itself.

Everything is bounded and verified before it is returned or kept. Which source serves what is the remote room's own
business (`MirroredSource`, `BundleMirrors`); a lie of one is passed over while another has the truth.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import IO, TypeVar

from oscirc_blockstore.accelerators import Accelerator
from oscirc_blockstore.digests import Digest, verify
from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    IntegrityError,
    NotServedError,
    TransportError,
)
from oscirc_remote.bundle_mirrors import BundleMirrors
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.fetching import HttpFrameSource
from oscirc_remote.http_client import HttpClient
from oscirc_remote.mirrors import MirroredSource, OnFrame
from oscirc_remote.rate_limits import RateLimit
from oscirc_remote.remotes import Remote
from oscirc_remote.session import Session, utc_now
from oscirc_server.mirroring.verified import VerifiedMetadata

REFRESH_S = 60.0
DOCUMENT_S = 30.0
_STALL_S = 20.0
_PIECE_BYTES = 1 << 20
_LONGEST_S = 24 * 3600.0

T = TypeVar("T")


class Upstream:
    """The sources of a mirror; safe for threads, but for `refresh`. Close it when done."""

    def __init__(
        self,
        remote: Remote,
        sources: Sequence[str],
        *,
        rate_limit: RateLimit | None = None,
        on_frame: OnFrame = lambda _digest, _frame: None,
        cancellation: Cancellation | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.cancellation = cancellation or Cancellation()
        self._remote = remote
        self._sources = tuple(sources)
        self._rate_limit = rate_limit
        self._now = now
        self._blocks = MirroredSource(
            [HttpFrameSource(url, rate_limit=rate_limit) for url in sources], on_frame=on_frame
        )
        self._documents = BundleMirrors(self._blocks, rate_limit)

    def deadline(self, seconds: float) -> Deadline:
        """That many seconds from now, or until the work is called off."""
        return Deadline.after(seconds, self.cancellation)

    def check_wanted(self) -> None:
        """Raise where the work has been called off."""
        self.deadline(1.0).check("the copy")

    def refresh(self) -> VerifiedMetadata:
        """The newest metadata that a source has, by TUF's rules; raises what a session raises."""
        with Session(self._remote, sources=self._sources, deadline=self.deadline(REFRESH_S), now=self._now) as session:
            session.refresh()
            return VerifiedMetadata.parse(session.top_level(), session.notes)

    def document(self, path: str, max_bytes: int, judged: Callable[[bytes], T]) -> T | None:
        """What `judged` makes of a small file, or None where no source has it; it raises what is not to be taken."""
        return self._documents.get(path, max_bytes, self.deadline(DOCUMENT_S), judged)

    def named(self, path: str, digest: Digest, max_bytes: int) -> bytes | None:
        """A small file that has this digest."""

        def judged(raw: bytes) -> bytes:
            verify(raw, digest)
            return raw

        return self.document(path, max_bytes, judged)

    def block(self, digest: Digest, raw_size: int | None, seconds: float) -> bytes:
        """A block or node; its frame goes to `on_frame`."""
        return self._blocks.fetch(digest, raw_size, self.deadline(seconds))

    def accelerator(self, accelerator: Accelerator, file: IO[bytes]) -> None:
        """Write a whole accelerator over `file`, verified, or raise what the last source did."""
        problem: TransportError | IntegrityError = NotServedError(f"no source has {accelerator.path}")
        for url in self._sources:
            file.seek(0)
            try:
                self._stream(url, accelerator, file)
            except (TransportError, IntegrityError) as error:
                self.check_wanted()
                problem = error
            else:
                return
        raise problem

    def _stream(self, url: str, accelerator: Accelerator, file: IO[bytes]) -> None:
        hasher, left = hashlib.sha256(), accelerator.length
        with contextlib.closing(HttpClient(url, rate_limit=self._rate_limit)) as client:
            whole = self.deadline(_LONGEST_S)
            with client.stream(accelerator.path, 0, left, whole, whole=True, stall_s=_STALL_S) as body:
                while piece := body.read(min(_PIECE_BYTES, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise DocumentRefusedError(f"{url} sends more of {accelerator.path} than its listing states")
                    hasher.update(piece)
                    file.write(piece)
        if left or hasher.digest() != accelerator.sha256:
            raise DigestMismatchError(f"{url} offers a wrong {accelerator.path}")

    def close(self) -> None:
        """Let go of connections; what is under way ends."""
        self._documents.close()
        self._blocks.close()
