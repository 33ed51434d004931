"""How often blocks were deleted, in the database and in the store: a database that knows less is an older copy.

Such a database promises blocks that were deleted since it was copied, and a publisher would leave them out. So a
collection that is about to delete counts up first, in the store before the database; a start that finds the store's
number higher holds every row against the files before anybody is answered.
"""

from __future__ import annotations

import logging

from oscirc_server.collection.block_files import forget_absent
from oscirc_server.database import get_fact, set_fact
from oscirc_server.installation import Installation

PATH = "collection/serial"
FACT = "collection_serial"

_MAX_DIGITS = 15
_log = logging.getLogger(__name__)


def count_up(installation: Installation) -> None:
    """Blocks will be deleted now."""
    serial = max(_in_store(installation), _in_database(installation)) + 1
    installation.storage.replace(PATH, str(serial).encode())
    _set(installation, serial)


def check(installation: Installation) -> int:
    """At the start; returns how many rows promised what is not there."""
    in_store = _in_store(installation)
    if in_store <= _in_database(installation):
        return 0
    forgotten = forget_absent(installation)
    _set(installation, in_store)
    _log.warning("blocks were deleted after this database was copied", extra={"rows": forgotten})
    return forgotten


def _in_store(installation: Installation) -> int:
    raw = installation.storage.get(PATH, _MAX_DIGITS) or b""
    return int(raw) if raw.isdigit() and len(raw) <= _MAX_DIGITS else 0


def _in_database(installation: Installation) -> int:
    with installation.database.read() as session:
        return int(get_fact(session, FACT) or "0")


def _set(installation: Installation, serial: int) -> None:
    with installation.database.write(durable=True) as session:
        set_fact(session, FACT, str(serial))
