"""The server's upkeep, in the background: re-signing, expired drafts, a projection that an error had stopped.

Every minute it looks at the clock and the database rather than sleep for a day: a suspended machine, a clock that
jumped and a renewal by another process are all noticed alike. A failure is logged and tried again a minute later;
clients notice after days only (snapshot and timestamp live for seven).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sqlalchemy.exc import SQLAlchemyError

from oscirc_blockstore.errors import OscircError
from oscirc_server import repository
from oscirc_server.installation import Installation
from oscirc_server.services import drafts, lengths

PERIOD_S = 60.0
_log = logging.getLogger(__name__)


def upkeep(installation: Installation) -> None:
    """One round of it."""
    repository.complete_projection(installation)
    with installation.database.read() as session:
        due = repository.online_due(session, installation.now_s())
    if due:
        version = repository.resign_online(installation)
        _log.info("snapshot and timestamp re-signed", extra={"snapshot": version})
    expired = drafts.expire(installation)
    if expired:
        _log.info("open drafts expired", extra={"drafts": expired})


async def keep_up(installation: Installation, stop: asyncio.Event, period_s: float = PERIOD_S) -> None:
    """Do a round every `period_s` until `stop`; the round under way is finished.

    Beside the rounds, what a server of an older version or one that was killed did not make is made: that may take
    longer than signatures live.
    """
    making = asyncio.create_task(_make_missing(installation, stop))
    while not stop.is_set():
        try:
            await asyncio.to_thread(upkeep, installation)
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
