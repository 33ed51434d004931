"""Brings the accelerators of versions that this repository lists now: judged as if their publisher had sent them.

Files are read whole, so those of more than `MAX_BYTES` are left out: publishers and the server's jobs make them anew.
Block lengths and fleet profiles are the server's own and are made by it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection

from oscirc_blockstore import accelerators
from oscirc_blockstore.accelerators import FLEET_PREFIX, LENGTHS, Accelerator, listing_path
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import OscircError
from oscirc_server.elsewhere import Elsewhere
from oscirc_server.importing.reading import Offer, OfferedVersion
from oscirc_server.initialising import LOCAL_ACTOR
from oscirc_server.installation import Installation
from oscirc_server.services import accelerators as service

MAX_BYTES = 256 << 20
_log = logging.getLogger(__name__)


def copy(installation: Installation, source: Elsewhere, offer: Offer, publishers: Collection[str]) -> int:
    """Bring what is listed for versions of these publishers; how many came."""
    came = 0
    for version in offer.versions:
        if version.publisher not in publishers:
            continue
        raw = source.read(listing_path(version.digest), accelerators.MAX_LISTING_BYTES)
        try:
            listed = accelerators.parse_listing(raw).accelerators if raw is not None else ()
        except OscircError:
            continue
        with installation.database.read() as session:
            here = {(each.kind, each.name) for each in service.listing(session, version.digest).accelerators}
        for each in listed:
            own = each.kind == LENGTHS or each.name.startswith(FLEET_PREFIX)
            if not own and (each.kind, each.name) not in here and each.length <= MAX_BYTES:
                came += _bring(installation, source, version, each)
    return came


def _bring(installation: Installation, source: Elsewhere, version: OfferedVersion, wanted: Accelerator) -> bool:
    raw = source.read(wanted.path, wanted.length)
    if raw is None or digest_of(raw) != wanted.sha256:
        return False
    names = (version.publisher, version.image, version.label)
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.seek(0)
        try:
            service.put(installation, names, wanted.kind, wanted.name, wanted.sha256, file, actor=LOCAL_ACTOR)
        except OscircError as error:
            _log.warning("an accelerator was not imported", extra={"path": wanted.path, "error": str(error)})
            return False
    return True
