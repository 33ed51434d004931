"""Takes away what is `deleting`: the files, and then the rows. One process begins it, any other may end it.

Where a lock is a session of PostgreSQL, its holder can have lost it without knowing (`locks`), and may wake up long
after others went on. A removal therefore goes by the time it was begun at, which its rows bear (`condemned_s`):

- none of its files is asked for later than `REMOVE_WITHIN_S` after it, and the store takes less than as long again for
  one (`object_storage`); what is left then stays `deleting`;
- nobody else takes the rows up before `FINISH_AFTER_S`, which allows for clocks that differ, and who does writes a
  time of his own into them first;
- rows go only where they still bear one's own time, so that nobody uploads what somebody else is about to remove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress

from sqlalchemy import delete, or_, select, update

from oscirc_blockstore.digests import Digest, block_path
from oscirc_server.database import CHUNK, chunks
from oscirc_server.errors import SupersededError
from oscirc_server.installation import Installation
from oscirc_server.locks import Held
from oscirc_server.models import BLOCK_DELETING, BlockRow
from oscirc_server.repository import CLOCK_SLACK_S

REMOVERS = 8
REMOVE_WITHIN_S = 60.0
FINISH_AFTER_S = 120 + CLOCK_SLACK_S  # of what another process has begun, where a lock can be lost unawares


def now_s() -> float:
    """Seconds that go on while the machine is suspended, unlike those of `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def remove(installation: Installation, held: Held, digests: Sequence[Digest], stamp_s: int, begun: float) -> None:
    """The files and rows of these, which are `deleting` since `stamp_s`, by `now_s` since `begun`.

    `SupersededError` where the lock is lost, or when it took too long.
    """
    if not digests:
        return
    held.confirm()
    removed = _remove_files(installation, digests, begun)
    _forget(installation, removed, stamp_s)
    if len(removed) < len(digests):
        raise SupersededError("removing blocks took too long: others may go on with it", hint="collect again")


def finish(installation: Installation, held: Held, *, stopped: Callable[[], bool] = lambda: False) -> int:
    """Go on with deletions that were begun and not ended; how many blocks that were. For the lock's holder."""
    horizon_s = installation.now_s() - (0 if installation.database.is_sqlite else FINISH_AFTER_S)
    finished = 0
    while not stopped():
        begun, stamp_s = now_s(), installation.now_s()
        digests = _taken_up(installation, horizon_s, stamp_s)
        if not digests:
            break
        remove(installation, held, digests, stamp_s, begun)
        finished += len(digests)
    return finished


def _taken_up(installation: Installation, horizon_s: int, stamp_s: int) -> list[Digest]:
    """Some of the rows that are `deleting` since `horizon_s`; from now on they are whose time they bear.

    And of those that bear a time which no clock can rightly have shown yet: nobody would ever take them up.
    """
    old_or_wrong = or_(BlockRow.condemned_s <= horizon_s, BlockRow.condemned_s > stamp_s + CLOCK_SLACK_S)
    due = (BlockRow.state == BLOCK_DELETING, old_or_wrong)
    with installation.database.read() as session:  # mostly there are none, and nobody need wait for us
        if session.scalar(select(BlockRow.digest).where(*due).limit(1)) is None:
            return []
    with installation.database.write(durable=True) as session:
        digests = [Digest(raw) for raw in session.scalars(select(BlockRow.digest).where(*due).limit(CHUNK))]
        session.execute(
            update(BlockRow)
            .where(BlockRow.digest.in_(digests))
            .values(condemned_s=stamp_s)
            .execution_options(synchronize_session=False)
        )
    return digests


def _remove_files(installation: Installation, digests: Sequence[Digest], begun: float) -> list[Digest]:
    """Remove block files, absent ones too, as long as there is time; which those were."""
    storage = installation.storage

    def removed(digest: Digest) -> bool:
        if now_s() - begun > REMOVE_WITHIN_S:
            return False
        storage.remove(block_path(digest))
        return True

    with ThreadPoolExecutor(REMOVERS, thread_name_prefix="removing") as pool:
        return list(compress(digests, pool.map(removed, digests)))


def _forget(installation: Installation, digests: Sequence[Digest], stamp_s: int) -> None:
    """The rows of files that are removed: from now on these blocks may be uploaded again."""
    mine = (BlockRow.state == BLOCK_DELETING, BlockRow.condemned_s == stamp_s)
    with installation.database.write() as session:
        for chunk in chunks(digests):
            session.execute(delete(BlockRow).where(BlockRow.digest.in_(chunk), *mine))
