"""What `oscirc serve gc | scrub` show: where it is, and at the end what it did or would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oscirc.output import human_bytes, warn

if TYPE_CHECKING:
    from oscirc.output import Bar
    from oscirc_server.collection.report import Count, Report
    from oscirc_server.collection.scrubbing import ScrubReport


class Shown:
    """Draws a collection's progress."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._phase = ""
        self._done = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Move the bar."""
        if phase != self._phase:
            self._bar.reset(total)
            self._phase, self._done = phase, 0
        self._bar.set_postfix_str(phase, refresh=False)
        self._bar.update(done - self._done)
        self._done = done


def _told(count: Count, what: str) -> str:
    return f"{count.number} {what} ({human_bytes(count.size_bytes)})"


def print_report(report: Report) -> None:
    """For people."""
    would = "would be " if report.dry_run else ""
    click.echo(f"{report.manifests} versions' disks and the open drafts need {report.needed} blocks and nodes")
    click.echo(f"{would}deleted: {_told(report.deleted, 'blocks')}, {_told(report.orphans, 'unknown files')}")
    click.echo(f"{would}condemned: {_told(report.condemned, 'blocks')}; waiting: {_told(report.waiting, 'blocks')}")
    other = f"{report.manifests_retired} disks that nobody can ask for, {_told(report.files, 'other files')}"
    click.echo(f"{would}removed: {other}")
    if report.revived.number or report.adopted.number:
        click.echo(f"needed again: {_told(report.revived, 'blocks')}; found: {_told(report.adopted, 'blocks')}")
    if report.lost_count:
        warn(f"{report.lost_count} blocks that versions need are not in the store: {', '.join(report.lost[:3])} …")
    if report.damaged_count:
        warn(f"{report.damaged_count} blocks that versions need are damaged: {', '.join(report.damaged[:3])} …")


def print_scrub(report: ScrubReport) -> None:
    """For people."""
    went_on = ", going on where the last one was interrupted" if report.resumed else ""
    click.echo(f"{report.checked} blocks read, {human_bytes(report.checked_bytes)}{went_on}")
    click.echo(f"{report.damaged} damaged, {report.missing} missing, {report.repaired} of them repaired")
    if report.bad:
        needed = f", {report.needed_bad} of them needed by versions or drafts" if report.needed_bad else ""
        warn(f"not repaired{needed}: {', '.join(report.bad[:3])}{' …' if len(report.bad) > 3 else ''}")  # noqa: PLR2004
