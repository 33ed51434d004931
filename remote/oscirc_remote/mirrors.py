"""Verified blocks from several mirrors: the layer below which bytes are not to be trusted and above which they are.

The rules (`standing`: in which order mirrors are asked; `hedging`: when a second one is asked beside the first):

1. A frame is decoded and hashed here; what is not the block asked for is an offence of the mirror, never an answer.
2. An offender is asked once more past HTTP caches, since the poisoned one may stand in between.
3. While another mirror in good standing is left to ask, one mirror costs a read at most `PATIENCE_S`, whatever it
   does; more only where the best mirror, too, takes long: then it is the link that is slow.
4. Whose demotion is over is probed, whose score is old is sampled, each with a block that is wanted anyway: it is asked
   first, the preferred one beside it as soon as it would have answered itself. One fetch does so, the rest do not.
5. What may heal by itself (unreachable, stalled, 5xx) is tried again with growing pauses until the deadline. What
   does not (404 everywhere, lies everywhere) is raised after one round, with the names of the mirrors.

Locks: `_lock` guards standings, budget and window, is held for arithmetic only, and no other lock is taken under it. A
single mirror is asked on the caller's thread; several are asked on threads of their own, see `racing`. What was still
being asked when a fetch returned notes its outcome itself when it is done.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    IntegrityError,
    NotServedError,
    OscircError,
    TransportError,
)
from oscirc_remote import racing
from oscirc_remote.asking import Wanted, asked_pause_s, final_error, may_heal
from oscirc_remote.counters import Counters
from oscirc_remote.deadlines import SYSTEM_CLOCK, Cancellation, Clock, Deadline
from oscirc_remote.hedging import Entrant, HedgeBudget, Race
from oscirc_remote.pacing import AheadWindow
from oscirc_remote.sources import FrameSource
from oscirc_remote.standing import LIES, Standing, ranked
from oscirc_remote.status import MirrorStatus
from oscirc_remote.workers import Workers

PATIENCE_S = 1.5
LONGEST_PATIENCE_S = 10.0
PATIENCE_PER_EXPECTED = 3.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
LONGEST_ASKED_PAUSE_S = 5.0
SAMPLE_EVERY, FIRST_SAMPLE = 50, 8
SAMPLE_AGE_S = 20.0
MOST_ASKED_AT_ONCE = 96

Problems = list[tuple[str, OscircError]]
OnFrame = Callable[[Digest, bytes], None]


@dataclass
class _Mirror:
    """A source, what it did, and its standing, which is under the lock of its `MirroredSource`."""

    source: FrameSource
    counters: Counters = field(
        default_factory=lambda: Counters("served", "failures", "missing", "bad_blocks", "hedges", "hedge_wins")
    )
    standing: Standing = field(default_factory=Standing)


class MirroredSource:
    """A `BlockSource` over frame sources, the preferred one first. Safe for threads.

    `on_frame` is given each block file once it was verified, on the thread that asked for it; it raises nothing.
    """

    def __init__(
        self,
        sources: Sequence[FrameSource],
        *,
        clock: Clock = SYSTEM_CLOCK,
        start: racing.Start | None = None,
        on_frame: OnFrame = lambda _digest, _frame: None,
    ) -> None:
        if not sources:
            raise ValueError("a mirrored source needs at least one source")
        self._mirrors = [_Mirror(source) for source in sources]
        self._standings = [mirror.standing for mirror in self._mirrors]
        self._clock = clock
        self._on_frame = on_frame
        self._workers = Workers("oscirc-mirror", MOST_ASKED_AT_ONCE)
        self._start = start or self._workers.run
        self._lock = threading.Lock()
        self._budget = HedgeBudget()
        self._link = AheadWindow()
        self._fetches = 0

    def fetch(self, digest: Digest, raw_size: int | None, deadline: Deadline) -> bytes:
        """The block, from whichever mirror serves it rightly first; `raw_size` None: of any size that it may have.

        Raises `IntegrityError` or `NotServedError` naming the mirrors when none will, and a retryable
        `TransportError` when the deadline passed before any could.
        """
        wanted = Wanted(digest, raw_size)
        pause_s = FIRST_PAUSE_S
        while True:
            deadline.check(f"block {digest.hex()[:16]}")
            raw, problems = self._ask_one(wanted, deadline) if len(self._mirrors) == 1 else self._race(wanted, deadline)
            if raw is not None:
                return raw
            errors = [error for _, error in problems]
            if deadline.remaining_s() <= pause_s or not any(may_heal(error) for error in errors):
                raise final_error(digest, problems)
            asked_s = min(asked_pause_s(errors), LONGEST_ASKED_PAUSE_S, deadline.remaining_s() / 2)
            own_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads clients, protects nothing
            deadline.pause(max(asked_s, own_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def preferred(self) -> list[str]:
        """The mirrors' names, the one to ask first in front."""
        with self._lock:
            return [self._mirrors[n].source.name for n in ranked(self._standings, self._clock.monotonic())]

    def report(self, name: str, problem: OscircError | None, *, received_bytes: int = 0, seconds: float = 0.0) -> None:
        """How a transfer went that somebody else made from a mirror, and what came of it in that time."""
        now = self._clock.monotonic()
        for mirror in self._mirrors:
            if mirror.source.name != name:
                continue
            if received_bytes and seconds > 0:
                with self._lock:
                    mirror.standing.streamed(now, received_bytes, seconds)
                    self._link.streamed(now, received_bytes, seconds)
            if problem is not None:
                mirror.counters.add("bad_blocks", isinstance(problem, LIES))
                self._failed(mirror, problem)

    def window(self) -> int:
        """How many blocks that nobody waits for may be under way at once: see `pacing`."""
        with self._lock:
            return self._link.window()

    def round_trip_s(self) -> float:
        """Least seconds from a request to its first byte, lately, from any mirror; 0.0 when nothing is known."""
        with self._lock:
            return self._link.round_trip_s

    def rate(self) -> float:
        """Greatest bytes per second, lately, from all mirrors together; 0.0 when nothing is known."""
        with self._lock:
            return self._link.rate

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        """Each mirror's standing and totals, in the given order."""
        now = self._clock.monotonic()
        with self._lock:
            return tuple(
                MirrorStatus(
                    name=mirror.source.name,
                    demoted=not mirror.standing.is_good(),
                    requests=mirror.source.requests,
                    received_bytes=mirror.source.received_bytes,
                    last_problem=mirror.standing.last_problem,
                    latency_ms=_milliseconds(mirror.standing.latency_s),
                    throughput=round(mirror.standing.rate or 0),
                    score=_milliseconds(mirror.standing.score_s(now)),
                    demoted_for_s=round(max(0.0, mirror.standing.demoted_until - now), 1),
                    lied=mirror.counters["bad_blocks"] > 0,
                    **mirror.counters.snapshot(),
                )
                for mirror in self._mirrors
            )

    def close(self) -> None:
        """Drop the connections of every mirror."""
        for mirror in self._mirrors:
            mirror.source.close()
        self._workers.close()

    def _ask_one(self, wanted: Wanted, deadline: Deadline) -> tuple[bytes | None, Problems]:
        """The single mirror is given longer before its silence counts: it may be dead, but it may also be slow."""
        only = self._mirrors[0]
        answer = self._ask(only, wanted, deadline, max(PATIENCE_S, deadline.remaining_s() / 2), deadline)
        return (answer, []) if isinstance(answer, bytes) else (None, [(only.source.name, answer)])

    def _race(self, wanted: Wanted, deadline: Deadline) -> tuple[bytes | None, Problems]:
        mirrors, race = self._line_up()
        patience_s = race.entrants[0].patience_s

        def ask(number: int, cancellation: Cancellation) -> bytes | OscircError:
            left = number + 1 < len(mirrors)
            share = deadline.at_most(max(2 * patience_s, deadline.remaining_s() / 2)) if left else deadline
            share = replace(share, cancellation=cancellation)
            return self._ask(mirrors[number], wanted, share, patience_s, deadline)

        finish = racing.run(race, ask, self._start, deadline, self._lock)
        problems = [(mirrors[number].source.name, error) for number, error in finish.problems]
        now = self._clock.monotonic()
        for number, began in finish.outrun.items():
            mirror, waited_s = mirrors[number], now - began
            silence = DeadlineExceededError(f"{mirror.source.name} did not answer within {waited_s:.1f} s")
            problems.append((mirror.source.name, silence))
            if race.entrants[number].learning or deadline.cancellation.reason:
                continue
            if waited_s >= patience_s:
                self._failed(mirror, silence)
            with self._lock:
                mirror.standing.outlasted(now, waited_s)
        if race.hedge is not None:
            mirrors[race.hedge].counters.add("hedges")
            mirrors[race.hedge].counters.add("hedge_wins", finish.winner == race.hedge)
        return finish.raw, problems

    def _line_up(self) -> tuple[list[_Mirror], Race]:
        """The mirrors in the order in which this fetch asks them: rule 4."""
        now = self._clock.monotonic()
        with self._lock:
            self._budget.earn()
            self._fetches += 1
            order = ranked(self._standings, now)
            expected_s = min((e for s in self._standings if (e := s.expected_s()) is not None), default=0.0)
            patience_s = min(LONGEST_PATIENCE_S, max(PATIENCE_S, PATIENCE_PER_EXPECTED * expected_s))
            learner = self._to_probe(order, now, patience_s)
            if learner is None and self._fetches % SAMPLE_EVERY == FIRST_SAMPLE:
                learner = self._to_sample(order, now)
            preferred = self._standings[order[0]]
            if learner is not None:
                order.remove(learner)
                order.insert(0, learner)
            entrants = []
            for number in order:
                hedged_by = preferred if number == learner else self._standings[number]
                good = self._standings[number].is_good()
                entrants.append(Entrant(hedged_by.hedge_after_s(), patience_s, good, number == learner))
            return [self._mirrors[number] for number in order], Race(entrants, self._budget)

    def _to_probe(self, order: Sequence[int], now: float, patience_s: float) -> int | None:
        for number in order[1:]:
            if self._standings[number].is_to_be_probed(now):
                self._standings[number].probed_until = now + 2 * patience_s  # meanwhile the others do not
                return number
        return None

    def _to_sample(self, order: Sequence[int], now: float) -> int | None:
        old = [n for n in order[1:] if self._standings[n].is_good()]
        oldest = min(old, key=lambda n: self._standings[n].measured_at, default=None)
        if oldest is None or self._standings[oldest].measured_at > now - SAMPLE_AGE_S:
            return None
        return oldest

    def _ask(
        self, mirror: _Mirror, wanted: Wanted, share: Deadline, stall_s: float, whole: Deadline
    ) -> bytes | OscircError:
        """Ask one mirror and note how it did, unless somebody called it off meanwhile: that is nobody's failure."""
        with self._lock:
            departure = self._link.departed(self._clock.monotonic())
        try:
            got = wanted.fetch(mirror.source, share, stall_s, lambda: mirror.counters.add("bad_blocks"))
        except (TransportError, IntegrityError) as error:
            if not whole.cancellation.reason and not share.cancellation.reason:
                self._failed(mirror, error)
            return error
        now = self._clock.monotonic()
        mirror.counters.add("served")
        with self._lock:
            mirror.standing.served(now, seconds=got.seconds, first_byte_s=got.first_byte_s, size=len(got.frame))
            self._link.landed(departure, now, len(got.frame), got.first_byte_s)
        self._on_frame(wanted.digest, got.frame)
        return got.raw

    def _failed(self, mirror: _Mirror, error: OscircError) -> None:
        if not isinstance(error, LIES):
            mirror.counters.add("missing" if isinstance(error, NotServedError) else "failures")
        with self._lock:
            mirror.standing.failed(self._clock.monotonic(), error)


def _milliseconds(seconds: float | None) -> float:
    return 0.0 if seconds is None else round(1000 * seconds, 1)
