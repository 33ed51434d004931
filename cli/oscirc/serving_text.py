"""What `oscirc serve status` and its neighbours say: a server's facts as text, as JSON, as one line for monitoring."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from oscirc.output import human_bytes, print_table, warn

if TYPE_CHECKING:
    from oscirc_server.key_places import RoleKeys
    from oscirc_server.renewal import Renewed
    from oscirc_server.status import Status

_SHORT_FINGERPRINT = 16


def date(seconds: int) -> str:
    """A moment, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def renewed_document(renewed: Renewed) -> dict[str, object]:
    """What took force, for programs."""
    return {**asdict(renewed), "expires": date(renewed.expires_s)}


def status_document(found: Status) -> dict[str, object]:
    """All facts, for programs; `healthy` is what the exit code says."""
    roles = [
        {**asdict(role), "expires": date(role.expires_s), "alarm": role.severity != "ok", "text": role.alarm}
        for role in found.roles
    ]
    return {**asdict(found), "roles": roles, "healthy": found.severity == "ok"}


def check_line(found: Status) -> str:
    """One line: the severity, and every alarm."""
    if found.severity == "ok":
        first = min(found.roles, key=lambda role: role.left_s)
        return f"OK: {len(found.roles)} roles in force, the first to expire is {first.role} on {date(first.expires_s)}"
    return f"{found.severity.upper()}: {'; '.join(found.alarms)}"


def _where(role: RoleKeys) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for number, key in enumerate(role.keys):
        needed = f"{role.threshold} of {len(role.keys)}" if number == 0 else ""
        place = key.file or ("elsewhere" if not role.files_here else f"elsewhere, or in {', '.join(role.files_here)}")
        rows.append((role.role if number == 0 else "", needed, f"{key.fingerprint[:_SHORT_FINGERPRINT]}…  {place}"))
    return rows


def print_status(found: Status) -> None:
    """All facts, for people."""
    click.echo(f"{found.remote_url}")
    click.echo(
        f"{found.publishers} publishers, {found.images} images, {found.blocks} blocks and nodes in "
        f"{human_bytes(found.stored_bytes)}, {found.open_drafts} open drafts"
    )
    rows = [
        (r.role, str(r.version), date(r.expires_s), "" if r.severity == "ok" else r.severity.upper())
        for r in found.roles
    ]
    print_table(("ROLE", "VERSION", "EXPIRES", ""), rows)
    click.echo("")
    print_table(("KEYS OF", "SIGN", "KEY AND PLACE"), [row for role in found.keys for row in _where(role)])
    for alarm in found.alarms:
        warn(alarm)
