"""The server's upkeep, in the background: re-signing, alarms, expired drafts, stopped projections, collections.

Every minute it looks at the clock and the database rather than sleep for a day: a suspended machine, a clock that
jumped and a renewal by another process are all noticed alike. A failure is logged and tried again a minute later;
clients notice after days only (snapshot and timestamp live for seven).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import OscircError
from oscirc_server import alarms, repository
from oscirc_server.alarms import RoleHealth, Severity
from oscirc_server.collection import collecting
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators, drafts, lengths, recounting

PERIOD_S = 60.0
ALARM_PERIOD_S = 3600
_log = logging.getLogger(__name__)


class AlarmLog:
    """Says each role's alarm when it comes or changes, and once an hour while it lasts."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Severity, int]] = {}

    def say(self, roles: Iterable[RoleHealth], now_s: int) -> None:
        """Log what has to be said now."""
        for role in roles:
            before = self._said.get(role.role)
            if role.severity is Severity.OK:
                if before is not None:
                    del self._said[role.role]
                    _log.info("an alarm has ended", extra={"role": role.role, "version": role.version})
                continue
            if before is not None and before[0] is role.severity and 0 <= now_s - before[1] < ALARM_PERIOD_S:
                continue
            self._said[role.role] = (role.severity, now_s)
            level = logging.WARNING if role.severity is Severity.WARNING else logging.ERROR
            facts = {"role": role.role, "severity": role.severity.value, "left_s": role.left_s, "alarm": role.alarm}
            _log.log(level, "a role needs renewal", extra=facts)


def upkeep(installation: Installation, alarm_log: AlarmLog | None = None) -> None:
    """One round of it."""
    repository.complete_projection(installation)
    accelerators.complete(installation)
    version = repository.renew_online(installation)
    if version is not None:
        _log.info("snapshot and timestamp re-signed", extra={"snapshot": version})
    if alarm_log is not None:
        alarm_log.say(alarms.roles_in_force(installation), installation.now_s())
    for counted in recounting.recount_due(installation):
        _log.info(
            "what a publisher keeps was counted", extra={"publisher": counted.publisher, "drift": counted.drifted}
        )
    expired = drafts.expire(installation)
    if expired:
        _log.info("open drafts expired", extra={"drafts": expired})


async def keep_collected(installation: Installation, stop: asyncio.Event, period_s: float = PERIOD_S) -> None:
    """Beside `keep_up`, since a collection may take long: go on with deletions, collect once a day."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(collecting.look_after, installation, stopped=stop.is_set)
        except (OscircError, SQLAlchemyError) as error:
            _log.error("collecting failed", extra={"error": str(error)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), period_s)


async def keep_up(installation: Installation, stop: asyncio.Event, period_s: float = PERIOD_S) -> None:
    """Do a round every `period_s` until `stop`; the round under way is finished.

    Beside the rounds, what a server of an older version or one that was killed did not make is made: that may take
    longer than signatures live.
    """
    alarm_log = AlarmLog()
    making = asyncio.create_task(_make_missing(installation, stop))
    while not stop.is_set():
        try:
            await asyncio.to_thread(upkeep, installation, alarm_log)
        except (OscircError, SQLAlchemyError) as error:
            _log.error("upkeep failed", extra={"error": str(error)})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), period_s)
    await making


async def _make_missing(installation: Installation, stop: asyncio.Event) -> None:
    try:
        await asyncio.to_thread(lengths.make_missing, installation, stopped=stop.is_set)
    except (OscircError, SQLAlchemyError) as error:  # of one version: logged there
        _log.error("missing block lengths could not be looked for", extra={"error": str(error)})
