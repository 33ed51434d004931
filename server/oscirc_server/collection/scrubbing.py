"""Reads again what the store holds, at a bounded rate, and holds it against its names; repairs what it can.

First every table is walked, so that what a released version needs is known even where row and file are gone; then all
rows and needed blocks are read by digest. Where a scrub was interrupted the next one goes on, from a fact in the
database that is written after every page. A scrub changes nothing that is good, and needs no lock to read: what a
collection deletes meanwhile has lost its row when it is looked at again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from oscirc_blockstore.digests import Digest, block_path
from oscirc_blockstore.errors import BusyError, IntegrityError
from oscirc_blockstore.frame import decode_verified, max_frame_bytes
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote.deadlines import Deadline
from oscirc_remote.rate_limits import RateLimit
from oscirc_server.collection.block_files import size_inside
from oscirc_server.collection.marking import Walker
from oscirc_server.collection.marks import PARTS, Marks
from oscirc_server.collection.repairing import LONGEST_FRAME, Mirrors, quarantine, repair
from oscirc_server.collection.report import MAX_NAMED
from oscirc_server.database import get_fact, set_fact
from oscirc_server.installation import Installation
from oscirc_server.models import BLOCK_DELETING, BlockRow, ManifestRow

SCRUBBED_TO = "scrubbed_to"
SCRUBBED = "scrubbed_s"
SCRUBBER = "scrubber"
PAGE = 500

_LONGEST_PAUSE_S = 3600.0

OnProgress = Callable[[int, int], None]
"""Hears (parts done, of how many)."""

_log = logging.getLogger(__name__)


def silent(_done: int, _total: int) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class ScrubReport:
    """`bad` are digests (the first hundred) that are not what they should be and could not be repaired.

    `needed_bad` of them a released version or a draft needs. `resumed` says that an earlier scrub's place was taken up.
    """

    resumed: bool = False
    complete: bool = False
    checked: int = 0
    checked_bytes: int = 0
    repaired: int = 0
    damaged: int = 0
    missing: int = 0
    needed_bad: int = 0
    bad: list[str] = field(default_factory=list)
    seconds: float = 0.0


def scrub(
    installation: Installation,
    mirror_urls: Sequence[str] = (),
    *,
    bytes_per_s: float | None = None,
    from_start: bool = False,
    on_progress: OnProgress = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> ScrubReport:
    """Check everything; `BusyError` when another scrub is under way."""
    with installation.locks.try_held(SCRUBBER) as held, Mirrors(mirror_urls) as mirrors:
        if held is None:
            raise BusyError("another scrub is under way", hint="wait for it to end")
        with Marks(installation.layout.root / "scrub-marks") as marks:
            return _Scrub(installation, mirrors, marks, bytes_per_s).run(
                from_start=from_start, on_progress=on_progress, stopped=stopped
            )


class _Scrub:
    def __init__(self, installation: Installation, mirrors: Mirrors, marks: Marks, bytes_per_s: float | None) -> None:
        self._installation = installation
        self._mirrors = mirrors
        self._marks = marks
        self._limit = None if bytes_per_s is None else RateLimit(bytes_per_s)
        self._report = ScrubReport()
        self._judged: set[Digest] = set()  # what could not be repaired
        self._mending = threading.Lock()

    def run(self, *, from_start: bool, on_progress: OnProgress, stopped: Callable[[], bool]) -> ScrubReport:
        begun, report = time.monotonic(), self._report
        after = b"" if from_start else self._place()
        report.resumed = bool(after)
        self._walk(stopped)
        for part in range(after[0] if after else 0, PARTS):
            on_progress(part, PARTS)
            for page in self._pages(part, after):
                if stopped():
                    return report
                for digest, raw_size, is_needed in page:
                    self._check(digest, raw_size, is_needed=is_needed)
                if page:
                    self._note(SCRUBBED_TO, page[-1][0].hex())
            after = b""
        on_progress(PARTS, PARTS)
        report.complete = True
        report.seconds = time.monotonic() - begun
        self._note(SCRUBBED_TO, "")
        self._note(SCRUBBED, str(self._installation.now_s()))
        return report

    def _walk(self, stopped: Callable[[], bool]) -> None:
        with self._installation.database.read() as session:
            manifests = [Digest(raw) for raw in session.scalars(select(ManifestRow.digest))]
        with Walker(self._installation, self._marks.add, self._node) as walker:
            for digest in manifests:
                if stopped():
                    return
                walker.walk_manifest(digest)

    def _node(self, digest: Digest, _whose: str) -> bytes | None:
        """A node of a table, repaired if need be; None where that cannot be done."""
        for _ in range(2):
            frame = self._installation.storage.get(block_path(digest), max_frame_bytes(NODE_SIZE))
            try:
                return decode_verified(frame or b"", NODE_SIZE, digest)
            except IntegrityError:
                if not self._mend(digest, is_missing=frame is None, is_needed=True):
                    return None
        return None

    def _pages(self, part: int, after: bytes) -> Sequence[list[tuple[Digest, int | None, bool]]]:
        """(digest, raw size where a row says it, whether something needs it) of a part's rows and needed blocks."""
        low, high = bytes([part]), bytes([part + 1]) if part < PARTS - 1 else b"\xff" * 33
        with self._installation.database.read() as session:
            columns = (BlockRow.digest, BlockRow.raw_size)
            query = select(*columns).where(BlockRow.digest > low, BlockRow.digest < high)
            rows = {
                Digest(row[0]): int(row[1]) for row in session.execute(query.where(BlockRow.state != BLOCK_DELETING))
            }
        needed = self._marks.part(part)
        digests = sorted(digest for digest in rows.keys() | needed if digest > after)
        listed = [(digest, rows.get(digest), digest in needed) for digest in digests]
        return [listed[start : start + PAGE] for start in range(0, len(listed), PAGE)]

    def _check(self, digest: Digest, raw_size: int | None, *, is_needed: bool) -> None:
        if digest in self._judged:
            return
        frame = self._installation.storage.get(block_path(digest), LONGEST_FRAME)
        report = self._report
        report.checked += 1
        report.checked_bytes += len(frame or b"")
        if self._limit is not None:
            self._limit.spend(len(frame or b""), Deadline.after(_LONGEST_PAUSE_S))
        size = None if frame is None else size_inside(frame, digest)
        if size is not None and raw_size in (None, size):
            return
        if not is_needed and not self._still_has_row(digest):
            return  # collected meanwhile
        self._mend(digest, is_missing=frame is None, is_needed=is_needed)

    def _still_has_row(self, digest: Digest) -> bool:
        with self._installation.database.read() as session:
            state = session.scalar(select(BlockRow.state).where(BlockRow.digest == digest))
        return state not in (None, BLOCK_DELETING)

    def _mend(self, digest: Digest, *, is_missing: bool, is_needed: bool) -> bool:
        report = self._report
        with self._mending:  # tables are walked by several threads
            if digest in self._judged:
                return False
            if is_missing:
                report.missing += 1
            else:
                report.damaged += 1
            if repair(self._installation, self._mirrors, digest):
                report.repaired += 1
                return True
            self._judged.add(digest)
            report.needed_bad += is_needed
            if len(report.bad) < MAX_NAMED:
                report.bad.append(digest.hex())
            facts = {"digest": digest.hex(), "missing": is_missing, "needed": is_needed}
            _log.error("a block is not what it should be", extra=facts)
            quarantine(self._installation, digest)
            return False

    def _place(self) -> bytes:
        with self._installation.database.read() as session:
            return bytes.fromhex(get_fact(session, SCRUBBED_TO) or "")

    def _note(self, name: str, value: str) -> None:
        with self._installation.database.write() as session:
            set_fact(session, name, value)
