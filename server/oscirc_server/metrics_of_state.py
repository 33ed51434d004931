"""What the database and the store know, as Prometheus gauges: expiries, blocks, drafts, room; gathered when asked for.

It is the same on every process of an installation: take `max`, not `sum`. Rows are counted at most once in
`COUNT_EVERY_S`, whatever is scraped; a database that cannot be asked shows as `oscirc_server_up_to_date 0`, beside
what was known last, and never as an error of the page. Roles are the four and the publishers that expire first, so
that the number of series is bounded.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import OscircError
from oscirc_server.alarms import RoleHealth, Severity, roles_of
from oscirc_server.installation import Installation
from oscirc_server.key_files import OFFLINE_ROLES, ONLINE_ROLES
from oscirc_server.models import DRAFT_OPEN, JOB_QUEUED, BlockRow, Draft, JobRow
from oscirc_server.services.catalog import image_count

COUNT_EVERY_S = 60.0
MAX_PUBLISHER_ROLES = 50
_TOP = (*OFFLINE_ROLES, *ONLINE_ROLES)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """What was counted: roles in force, (state, blocks, bytes), open drafts, images, (kind, state, jobs).

    `waiting_since_s` is when the job was asked for that has been ready to run for longest.
    """

    roles: tuple[RoleHealth, ...] = ()
    blocks: tuple[tuple[str, int, int], ...] = ()
    drafts: int = 0
    images: int = 0
    jobs: tuple[tuple[str, str, int], ...] = ()
    waiting_since_s: int | None = None


def count(installation: Installation) -> State:
    """Ask the database."""
    with installation.database.read() as session:
        roles = sorted(roles_of(session, installation.now_s()), key=lambda role: role.expires_s)
        top = [role for role in roles if role.role in _TOP]
        publishers = [role for role in roles if role.role not in _TOP]
        blocks = session.execute(
            select(BlockRow.state, func.count(), func.sum(BlockRow.stored_length)).group_by(BlockRow.state)
        ).all()
        return State(
            roles=tuple(top + publishers[:MAX_PUBLISHER_ROLES]),
            blocks=tuple((state, number, int(size or 0)) for state, number, size in blocks),
            drafts=session.scalar(select(func.count()).select_from(Draft).where(Draft.state == DRAFT_OPEN)) or 0,
            images=image_count(session),
            jobs=tuple(
                (kind, state, number)
                for kind, state, number in session.execute(
                    select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
                )
            ),
            waiting_since_s=session.scalar(
                select(func.min(JobRow.created_s)).where(
                    JobRow.state == JOB_QUEUED, JobRow.not_before_s <= installation.now_s()
                )
            ),
        )


class StateCollector:
    """A collector for a registry; safe for threads. `monotonic_s` decides when rows are counted anew."""

    def __init__(self, installation: Installation, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._installation = installation
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._state = State()
        self._counted_at_s: float | None = None
        self._is_current = False

    def describe(self) -> list[Metric]:
        """Nothing: a registry must not count rows to learn names."""
        return []

    def _current(self) -> State:
        with self._lock:
            now_s = self._monotonic_s()
            if self._counted_at_s is None or now_s - self._counted_at_s >= COUNT_EVERY_S:
                self._counted_at_s = now_s
                try:
                    self._state = count(self._installation)
                    self._is_current = True
                except (OscircError, SQLAlchemyError) as error:
                    self._is_current = False
                    _log.error("metrics could not be counted", extra={"error": str(error)[:300]})
            return self._state

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        state = self._current()
        yield _gauge("up_to_date", "1 when the database answered the last count.", float(self._is_current))
        expiries = GaugeMetricFamily(
            "oscirc_server_role_expires_timestamp_seconds", "When a signed role expires.", labels=["role"]
        )
        severities = GaugeMetricFamily(
            "oscirc_server_role_severity", "0 well, 1 warning, 2 critical, 3 expired.", labels=["role"]
        )
        for role in state.roles:
            expiries.add_metric([role.role], role.expires_s)
            severities.add_metric([role.role], list(Severity).index(role.severity))
        yield expiries
        yield severities
        blocks = GaugeMetricFamily("oscirc_server_blocks", "Blocks and nodes by state.", labels=["state"])
        stored = GaugeMetricFamily("oscirc_server_block_bytes", "Bytes of their frames.", labels=["state"])
        for name, number, size in state.blocks:
            blocks.add_metric([name], number)
            stored.add_metric([name], size)
        yield blocks
        yield stored
        yield _gauge("open_drafts", "Drafts that are open.", state.drafts)
        yield _gauge("images", "Images that are listed.", state.images)
        jobs = GaugeMetricFamily("oscirc_server_jobs", "Background jobs by state.", labels=["kind", "state"])
        for kind, name, number in state.jobs:
            jobs.add_metric([kind, name], number)
        yield jobs
        since_s = state.waiting_since_s
        waited_s = 0 if since_s is None else max(0, self._installation.now_s() - since_s)
        yield _gauge("job_waiting_seconds", "For how long the oldest job that could run has waited.", waited_s)
        yield _gauge(
            "projection_pending", "1 while the tree lags behind.", float(self._installation.projection_pending)
        )
        pool = self._installation.database.pool()
        connections = GaugeMetricFamily(
            "oscirc_server_database_connections", "Connections of this process to the database.", labels=["state"]
        )
        connections.add_metric(["in_use"], pool.in_use)
        connections.add_metric(["idle"], pool.idle)
        yield connections
        yield _gauge("database_connections_limit", "How many there may be at once.", pool.limit)
        free = _free_bytes(self._installation)
        if free is not None:
            yield _gauge("storage_free_bytes", "Room left where the tree's directory is.", free)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"oscirc_server_{name}", text, value=value)


def _free_bytes(installation: Installation) -> int | None:
    place = installation.storage.local_path("metadata")
    try:
        found = None if place is None else os.statvfs(place)
    except OSError:
        return None
    return None if found is None else found.f_bavail * found.f_frsize
