"""Verified blocks from several mirrors: the layer below which bytes are not to be trusted and above which they are.

The rules:

1. A frame is decoded and hashed here; what is not the block asked for is an offence of the mirror, never an answer.
2. An offender is asked once more past HTTP caches, since the poisoned one may stand in between.
3. A mirror that fails is demoted for a while that doubles with each failure in a row; the others are asked first. One
   fetch probes it when the while is over, the rest keep to the others until that has succeeded.
4. While another mirror in good standing is left to ask, one mirror costs at most `PATIENCE_S`.
5. What may heal by itself (unreachable, stalled, 5xx) is tried again with growing pauses until the deadline. What
   does not (404 everywhere, lies everywhere) is raised after one round, with the names of the mirrors.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    IntegrityError,
    NotServedError,
    OscircError,
    OversizedResponseError,
    TransportError,
    UnreachableError,
)
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import SYSTEM_CLOCK, Clock, Deadline
from oscirc_remote.flights import AHEAD_WINDOW
from oscirc_remote.sources import FrameSource
from oscirc_remote.status import MirrorStatus

PATIENCE_S = 2.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
FIRST_DEMOTION_S = 5.0
LIE_DEMOTION_S = 60.0
LONGEST_DEMOTION_S = 600.0

_LIES = (IntegrityError, OversizedResponseError, DocumentRefusedError)  # answers that are not the block asked for


@dataclass
class _Mirror:
    """A source and its standing; changed only under the lock of its `MirroredSource`."""

    source: FrameSource
    counters: Counters = field(default_factory=lambda: Counters("served", "failures", "missing", "bad_blocks"))
    demoted_until: float = 0.0
    failures_in_a_row: int = 0
    last_problem: str = ""


class MirroredSource:
    """A `BlockSource` over frame sources, the preferred one first. Safe for threads."""

    def __init__(self, sources: Sequence[FrameSource], *, clock: Clock = SYSTEM_CLOCK) -> None:
        if not sources:
            raise ValueError("a mirrored source needs at least one source")
        self._mirrors = [_Mirror(source) for source in sources]
        self._clock = clock
        self._lock = threading.Lock()

    def fetch(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        """The block, from whichever mirror serves it rightly first.

        Raises `IntegrityError` or `NotServedError` naming the mirrors when none will, and a retryable
        `TransportError` when the deadline passed before any could.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            problems: list[tuple[str, OscircError]] = []
            order = self._order()
            for rank, mirror in enumerate(order):
                deadline.check(f"block {digest.hex()[:16]}")
                try:
                    return self._fetch_from(mirror, digest, raw_size, self._share(order, rank, deadline), deadline)
                except (TransportError, IntegrityError) as error:
                    problems.append((mirror.source.name, error))
            if deadline.remaining_s() <= pause_s or not any(_may_heal(error) for _, error in problems):
                raise _final_error(digest, problems)
            deadline.pause(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # spreads clients, protects nothing
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def preferred(self) -> list[str]:
        """The mirrors' names, the one to ask first in front."""
        return [mirror.source.name for mirror in self._order()]

    def window(self) -> int:
        """How many blocks nobody waits for may be under way at once."""
        return AHEAD_WINDOW

    def report(self, name: str, problem: OscircError | None) -> None:
        """How a transfer that somebody else made from a mirror went."""
        for mirror in self._mirrors:
            if mirror.source.name == name and problem is not None:
                self._demote(mirror, problem)

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        """Each mirror's standing and totals, in the given order."""
        now = self._clock.monotonic()
        return tuple(
            MirrorStatus(
                name=mirror.source.name,
                demoted=mirror.demoted_until > now,
                requests=mirror.source.requests,
                received_bytes=mirror.source.received_bytes,
                last_problem=mirror.last_problem,
                **mirror.counters.snapshot(),
            )
            for mirror in self._mirrors
        )

    def close(self) -> None:
        """Drop the connections of every mirror."""
        for mirror in self._mirrors:
            mirror.source.close()

    def _order(self) -> list[_Mirror]:
        """Mirrors in good standing as given, then the demoted ones, the one to be probed next first."""
        now = self._clock.monotonic()
        with self._lock:
            order = sorted(self._mirrors, key=lambda mirror: mirror.demoted_until if mirror.demoted_until > now else 0)
            first = order[0]
            if len(order) > 1 and first.failures_in_a_row and first.demoted_until <= now:
                first.demoted_until = now + PATIENCE_S  # this caller probes it; meanwhile the others do not
            return order

    def _share(self, order: Sequence[_Mirror], rank: int, deadline: Deadline) -> Deadline:
        """How long the mirror of this rank may take: rule 4."""
        left = order[rank + 1 :]
        now = self._clock.monotonic()
        if any(mirror.demoted_until <= now for mirror in left):
            return deadline.at_most(PATIENCE_S)
        if left:
            return deadline.at_most(max(PATIENCE_S, deadline.remaining_s() / 2))
        return deadline

    def _fetch_from(self, mirror: _Mirror, digest: Digest, raw_size: int, share: Deadline, whole: Deadline) -> bytes:
        # a single source is given longer before its silence counts: it may be dead, but it may also be slow
        stall_s = PATIENCE_S if len(self._mirrors) > 1 else max(PATIENCE_S, whole.remaining_s() / 2)
        try:
            try:
                raw = _fetch_verified(mirror.source, digest, raw_size, share, stall_s)
            except _LIES as lie:
                mirror.counters.add("bad_blocks")
                again = whole.at_most(PATIENCE_S)
                try:
                    raw = _fetch_verified(mirror.source, digest, raw_size, again, stall_s, past_caches=True)
                except (TransportError, IntegrityError):
                    raise lie from None
        except (TransportError, IntegrityError) as error:
            if not whole.cancellation.reason:  # what the reader called off is nobody's failure
                self._demote(mirror, error)
            raise
        mirror.counters.add("served")
        if mirror.failures_in_a_row:
            with self._lock:
                mirror.failures_in_a_row, mirror.demoted_until = 0, 0.0
        return raw

    def _demote(self, mirror: _Mirror, error: OscircError) -> None:
        lied = isinstance(error, _LIES)
        if not lied:
            mirror.counters.add("missing" if isinstance(error, NotServedError) else "failures")
        with self._lock:
            doubled = (LIE_DEMOTION_S if lied else FIRST_DEMOTION_S) * 2 ** min(mirror.failures_in_a_row, 10)
            mirror.demoted_until = self._clock.monotonic() + min(doubled, LONGEST_DEMOTION_S)
            mirror.failures_in_a_row += 1
            mirror.last_problem = str(error)


def _fetch_verified(
    source: FrameSource, digest: Digest, raw_size: int, deadline: Deadline, stall_s: float, *, past_caches: bool = False
) -> bytes:
    limit = max_frame_bytes(raw_size)
    frame = source.fetch_frame(digest, limit, deadline, stall_s=stall_s, past_caches=past_caches)
    return decode_verified(frame, raw_size, digest)


def _may_heal(error: OscircError) -> bool:
    return isinstance(error, TransportError) and error.retryable


def _final_error(digest: Digest, problems: Sequence[tuple[str, OscircError]]) -> OscircError:
    """One error for a block that no mirror served: what may heal decides first, then lies, then absence."""
    told = "; ".join(f"{name}: {error}" for name, error in problems)
    message = f"block {digest.hex()} could not be had ({told})"
    errors = [error for _, error in problems]
    if any(_may_heal(error) for error in errors):
        kind = DeadlineExceededError if all(isinstance(e, DeadlineExceededError) for e in errors) else UnreachableError
        return kind(message, hint="the network or the server may come back: the same read can succeed later")
    if any(isinstance(error, _LIES) for error in errors):
        return IntegrityError(message, hint="no byte of it was used; tell the operators of these servers")
    if all(isinstance(error, NotServedError) for error in errors):
        return NotServedError(message, hint="the version may have been deleted from the repository")
    return TransportError(message)
