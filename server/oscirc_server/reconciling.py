"""At the start: the database and the store are brought to agree, whatever happened to either of them meanwhile.

- After a reboot of the machine, uploaded frames that no release had synced yet lose their rows: a power cut may have
  taken their bytes. The next upload verifies the files where they stand.
- A database that was copied before blocks were deleted loses the rows of what is not there any more.
- A store that is ahead of the database (restored from an older copy) is believed as far as signatures reach
  (`adoption`). Version numbers that were seen there are never used again.
- Whatever the database holds and the tree lacks is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
from pathlib import Path

from sqlalchemy.orm import Session

from oscirc_blockstore.errors import IntegrityError
from oscirc_server import repository
from oscirc_server.adoption import adopt, ahead
from oscirc_server.collection import serial
from oscirc_server.database import get_fact, set_fact
from oscirc_server.disavowed import Disavowed, disavowed
from oscirc_server.installation import Installation
from oscirc_server.metadata import MAX_ROLE_BYTES, parse
from oscirc_server.services import accelerators, blocks, image_rows
from oscirc_server.storage import Storage
from oscirc_server.tree_paths import TIMESTAMP_PATH, role_of_path
from oscirc_server.tuf_api import Timestamp

BOOT_ID = "boot_id"

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
_MAX_VERSION = 10**12  # what no honest repository reaches: a planted file must not use up the numbers
_log = logging.getLogger(__name__)


def reconcile(installation: Installation) -> None:
    """Bring database and store to agree; afterwards the tree is complete and its timestamp is the database's."""
    _forget_unsynced(installation)
    serial.check(installation)
    with installation.database.read() as session:
        in_store, timestamp = _newest_in_store(installation.storage, disavowed(session))

    def is_behind(session: Session) -> bool:
        return (
            ahead(session, in_store)
            or timestamp > repository.current_version(session, "timestamp")
            or repository.online_due(session, installation.now_s())
        )

    with installation.database.read() as session:
        behind = is_behind(session)
    if behind:
        with contextlib.suppress(repository.NotDueError), repository.changing(installation) as change:
            if not is_behind(change.session):  # another server that started at the same moment has done it
                raise repository.NotDueError
            # Both count together: a timestamp that is lost had about the number of the newest snapshot.
            snapshot = in_store.get("snapshot", 0)
            change.stay_above(snapshot=snapshot, timestamp=max(timestamp, snapshot))
            adopt(installation.storage, change, in_store)
    with installation.database.write() as session:
        image_rows.make_missing(session)
    written = repository.project_everything(installation)
    accelerators.project_all(installation)
    if written:
        _log.warning("the tree was completed from the database", extra={"files": written})


def _forget_unsynced(installation: Installation) -> None:
    if installation.storage.durable_on_put:
        return
    try:
        boot = _BOOT_ID_PATH.read_text().strip()
    except OSError:
        boot = "unknown"
    name = f"{BOOT_ID}:{hashlib.sha256(platform.node().encode()).hexdigest()[:16]}"  # machines that share a directory
    with installation.database.write() as session:
        before = get_fact(session, name)
        if before is not None and (before != boot or boot == "unknown"):
            blocks.forget_unsynced(session)
        set_fact(session, name, boot)


def _newest_in_store(storage: Storage, gone: Disavowed) -> tuple[dict[str, int], int]:
    """The highest version number of every role that stands in the store, and the timestamp's; not a thief's.

    Files of versions that were disavowed are removed: a crash may have come between that and their removal.
    """
    newest: dict[str, int] = {}
    for file in list(storage.files("metadata")):
        found = role_of_path(file.path)
        if found is None:
            continue
        role, version = found
        if version in gone.get(role, frozenset()):
            storage.remove(file.path)
        elif version <= _MAX_VERSION:
            newest[role] = max(newest.get(role, 0), version)
    raw = storage.get(TIMESTAMP_PATH, MAX_ROLE_BYTES)
    try:
        timestamp = 0 if raw is None else parse(raw, Timestamp, TIMESTAMP_PATH).signed.version
    except IntegrityError:
        timestamp = 0
    usable = timestamp <= _MAX_VERSION and timestamp not in gone.get("timestamp", frozenset())
    return newest, timestamp if usable else 0
