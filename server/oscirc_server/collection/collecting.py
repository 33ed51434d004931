"""A collection from its beginning to its end, and the task that begins one every day.

The order: what earlier ones began is finished; drafts expire; what clients were told is gathered; rows that nothing
leads to go; everything that the others lead to is marked; then, part by part, rows and files are held against the
marks; at the end the tree's other files. What stops in between, by whatever cause, has done nothing that the next one
must undo.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from oscirc_blockstore.digests import Digest
from oscirc_blockstore.errors import BusyError
from oscirc_server.collection import block_files, marking, removing, roots, serial, tree_files
from oscirc_server.collection.marks import PARTS, Marks
from oscirc_server.collection.report import Report
from oscirc_server.collection.sweeping import Sweeper
from oscirc_server.database import get_fact, set_fact
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.locks import COLLECTOR, Held
from oscirc_server.models import BLOCK_DELETING
from oscirc_server.services import audit, drafts

COLLECTED = "collected_s"

OnProgress = Callable[[str, int, int], None]
"""Hears (phase, done, of how many)."""

_log = logging.getLogger(__name__)


def silent(_phase: str, _done: int, _total: int) -> None:
    """Nobody listens."""


def collect(
    installation: Installation,
    *,
    dry_run: bool = False,
    on_progress: OnProgress = silent,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Collect, or say what would be. `BusyError` when somebody does; `UnreadableRootError` changes nothing."""
    with installation.locks.try_held(COLLECTOR) as held:
        if held is None:
            raise BusyError("another collection is under way", hint="wait for it to end")
        return _collect(installation, held, dry_run=dry_run, on_progress=on_progress, stopped=stopped)


def _collect(
    installation: Installation, held: Held, *, dry_run: bool, on_progress: OnProgress, stopped: Callable[[], bool]
) -> Report:
    begun = time.monotonic()
    report = Report(dry_run=dry_run)
    if not dry_run:
        removing.finish(installation, held, stopped=stopped)
        report.drafts_expired = drafts.expire(installation)
    started_s = installation.now_s()
    told_for_s = installation.settings.collection.told_for_s
    with installation.database.read() as session:
        told = roots.told(session, now_s=started_s, told_for_s=told_for_s)
        gone = tree_files.retirable(session, told)
    if dry_run:
        report.manifests_retired = len(gone)
    else:
        tree_files.retire(installation, told, gone, report)
        marking.drop_leases_of_released(installation)
    with Marks(_place(installation)) as marks:
        marked = marking.mark(
            installation,
            marks,
            without=gone if dry_run else frozenset(),
            dry_run=dry_run,
            on_manifest=lambda done, total: on_progress("marking", done, total),
        )
        report.manifests, report.nodes = marked.manifests, marked.nodes
        sweeper = Sweeper(installation, held, started_s, report, partial(serial.count_up, installation))
        for part in range(PARTS):
            if stopped():
                return report
            on_progress("sweeping", part, PARTS)
            _part(installation, sweeper, report, part, marks.part(part))
        sweeper.finish()
    on_progress("sweeping", PARTS, PARTS)
    tree_files.remove_files(installation, held, report)
    report.complete = True
    report.seconds = time.monotonic() - begun
    if not dry_run:
        _note(installation, report)
    return report


def _part(installation: Installation, sweeper: Sweeper, report: Report, part: int, marked: set[Digest]) -> None:
    report.needed += len(marked)
    files = block_files.listed(installation, part)
    rows: set[Digest] = set()
    deleting: set[Digest] = set()
    for page in sweeper.rows(part):
        rows.update(row.digest for row in page)
        deleting.update(row.digest for row in page if row.state == BLOCK_DELETING)
        sweeper.sweep(page, marked)
    block_files.compare(installation, sweeper, report, files, rows, marked - deleting)


def _place(installation: Installation) -> Path:
    return installation.layout.root / "marks"


def _note(installation: Installation, report: Report) -> None:
    now_s = installation.now_s()
    with installation.database.write() as session:
        set_fact(session, COLLECTED, str(now_s))
        if report.deleted.number or report.orphans.number:
            audit.record(
                session,
                now_s,
                LOCAL_ACTOR,
                "collection",
                "blocks",
                deleted=report.deleted.number,
                deleted_bytes=report.deleted.size_bytes,
                orphans=report.orphans.number,
            )
    facts = {
        "needed": report.needed,
        "condemned": report.condemned.number,
        "deleted": report.deleted.number,
        "deleted_bytes": report.deleted.size_bytes,
        "retired": report.manifests_retired,
        "s": round(report.seconds, 1),
    }
    _log.info("collected", extra=facts)
    if report.lost_count or report.damaged_count:
        lost = {"lost": report.lost_count, "damaged": report.damaged_count, "first": (report.lost + report.damaged)[:3]}
        _log.error("blocks that released versions need are lost or damaged: oscirc serve scrub", extra=lost)


def look_after(installation: Installation, *, stopped: Callable[[], bool] = lambda: False) -> Report | None:
    """A round of the server's upkeep: finish what was begun, and collect when that is due and nobody else does."""
    with installation.locks.try_held(COLLECTOR) as held:
        if held is None:
            return None
        removing.finish(installation, held, stopped=stopped)
        if not _due(installation):
            return None
        return _collect(installation, held, dry_run=False, on_progress=silent, stopped=stopped)


def _due(installation: Installation) -> bool:
    """The first collection is one period after the first look, so that a new server does not begin with one."""
    every_s = installation.settings.collection.every_s
    if every_s <= 0:
        return False
    now_s = installation.now_s()
    with installation.database.read() as session:
        before = get_fact(session, COLLECTED)
    if before is None:
        with installation.database.write() as session:
            set_fact(session, COLLECTED, str(now_s))
        return False
    last_s = int(before)
    return last_s + every_s <= now_s or last_s > now_s + every_s
