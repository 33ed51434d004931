"""Asks one mirror for one block and judges the answer: verified bytes, or the mirror's fault in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    IntegrityError,
    NotServedError,
    OscircError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_blockstore.frame import decode_verified, max_frame_bytes, stated_size
from oscirc_blockstore.table import BLOCK_SIZES
from oscirc_remote.deadlines import Deadline
from oscirc_remote.sources import FrameSource
from oscirc_remote.standing import LIES


@dataclass(frozen=True, slots=True)
class Verified:
    """The block, the frame that it came as, how long that took, and how long its first byte."""

    raw: bytes
    frame: bytes
    seconds: float
    first_byte_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """One block that is asked for; `raw_size` None takes whatever a block or node may have."""

    digest: Digest
    raw_size: int | None

    def fetch(
        self, source: FrameSource, deadline: Deadline, stall_s: float, found_lying: Callable[[], None]
    ) -> Verified:
        """The block; after a lie (`found_lying` is called) asked for once more, past HTTP caches.

        Raises the first lie when the second answer is no block either.
        """
        try:
            return self._fetch_once(source, deadline, stall_s, past_caches=False)
        except LIES as lie:
            found_lying()
            try:
                return self._fetch_once(source, deadline, stall_s, past_caches=True)
            except (TransportError, IntegrityError):
                raise lie from None

    def _fetch_once(self, source: FrameSource, deadline: Deadline, stall_s: float, *, past_caches: bool) -> Verified:
        limit = max_frame_bytes(self.raw_size or BLOCK_SIZES[-1])
        began = deadline.clock.monotonic()
        served = source.fetch_frame(self.digest, limit, deadline, stall_s=stall_s, past_caches=past_caches)
        seconds = deadline.clock.monotonic() - began
        raw = decode_verified(served.frame, self.raw_size or stated_size(served.frame), self.digest)
        return Verified(raw, served.frame, seconds, served.first_byte_s)


def may_heal(error: OscircError) -> bool:
    """Whether the same question may have an answer later."""
    return isinstance(error, TransportError) and error.retryable


def asked_pause_s(errors: Sequence[OscircError]) -> float:
    """How long to wait before the first of those that may heal wishes to be asked again."""
    healing = [error for error in errors if may_heal(error)]
    return min(
        (error.retry_after_s if isinstance(error, ServerRefusedError) else 0.0 for error in healing), default=0.0
    )


def final_error(digest: Digest, problems: Sequence[tuple[str, OscircError]]) -> OscircError:
    """One error for a block that no mirror served: what may heal decides first, then lies, then absence."""
    told = "; ".join(f"{name}: {error}" for name, error in problems)
    message = f"block {digest.hex()} could not be had ({told})"
    errors = [error for _, error in problems]
    if any(may_heal(error) for error in errors):
        kind = DeadlineExceededError if all(isinstance(e, DeadlineExceededError) for e in errors) else UnreachableError
        return kind(message, hint="the network or the server may come back: the same read can succeed later")
    if any(isinstance(error, LIES) for error in errors):
        return IntegrityError(message, hint="no byte of it was used; tell the operators of these servers")
    if all(isinstance(error, NotServedError) for error in errors):
        return NotServedError(message, hint="the version may have been deleted from the repository")
    return TransportError(message)
