"""Whether somebody in this installation does jobs, and from how many versions before it makes delta packs unasked.

Whoever does jobs says so in the database, at its start and every minute from then on, busy or not, and takes it back
when it stops. Any server of the installation reads that, with workers of its own or without (`oscirc serve work` beside
`--jobs off`). One that has not spoken for five minutes is taken to be gone: what it was to do waits for the next one.
"""

from __future__ import annotations

import re

from sqlalchemy.orm import Session

from oscirc_server.database import get_fact, set_fact
from oscirc_server.installation import Installation

SAY_EVERY_S = 60.0
GONE_AFTER_S = 300
_FACT = "jobs.worker"
_FORM = re.compile(r"([0-9]{1,15}) ([0-9]{1,4}) ([0-9a-f]{8})")


def say(installation: Installation, worker: str) -> None:
    """Somebody (8 hexadecimal digits) does jobs at this moment, by these settings; of several the last one is heard."""
    with installation.database.write() as session:
        set_fact(session, _FACT, f"{installation.now_s()} {installation.settings.jobs.deltas} {worker}")


def leave(installation: Installation, worker: str) -> None:
    """It does none any more; where others do, one of them says so within a minute."""
    with installation.database.write() as session:
        said = _FORM.fullmatch(get_fact(session, _FACT) or "")
        if said is not None and said[3] == worker:
            set_fact(session, _FACT, "")


def deltas_made(installation: Installation, session: Session) -> int:
    """From so many versions before what a channel points at packs are made unasked; 0 where nobody does jobs."""
    own = installation.settings.jobs
    if own.at_once:
        return own.deltas
    said = _FORM.fullmatch(get_fact(session, _FACT) or "")
    if said is None or abs(installation.now_s() - int(said[1])) > GONE_AFTER_S:
        return 0
    return int(said[2])
