"""Where a channel is to point once all that belongs to a version is there: kept on this workstation until it is done.

A version is released first, its bundle and its delta packs follow, and the channel moves last. Who is interrupted in
between calls again, and then the version is there already, perhaps with everything else too: nothing that is served
tells whether the channel was still to move, or was moved back since by somebody who had a reason. So the intent is
written down before the release, and these rules hold:

- the channel is moved only where it still points at what it pointed at when the publication began; who moved it
  meanwhile, forwards or back, is not overruled;
- without an intent, a version that was released before moves no channel, unless the user names that channel;
- an intent is forgotten once it was followed, or found overtaken, or the user says that no channel is to move.

Layout of the directory (`$XDG_DATA_HOME/oscirc/publishing`, mode 0700): a file for each, named by what it is for. One
that is damaged counts as none: then a channel does not move, and the user is told.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from oscirc_blockstore import canonical
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError
from oscirc_remote.local_files import read_document, write_atomically
from oscirc_remote.paths import data_directory

_FORMAT = "oscirc-channel-intent-1"


@dataclass(frozen=True, slots=True)
class Intent:
    """`channel` is to leave the version `pointed_at` (empty: it did not exist) for the one that is published."""

    channel: str
    pointed_at: str


class ChannelIntents:
    """The intents of this user; `directory` is their own unless given."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or data_directory() / "publishing"

    def note(self, repository: str, version: str, intent: Intent) -> None:
        """Write it down; `version` is `publisher/image@version`, `repository` the URL. Raises `LocalError`."""
        document: dict[str, object] = {
            "format": _FORMAT,
            "repository": repository,
            "version": version,
            "channel": intent.channel,
            "pointed_at": intent.pointed_at,
        }
        write_atomically(self._place(repository, version), canonical.serialise(document))

    def of(self, repository: str, version: str) -> Intent | None:
        """What was meant for that version, None where nothing is known to be left to do."""
        try:
            document = read_document(self._place(repository, version)) or {}
        except LocalError:
            return None
        channel, pointed_at = document.get("channel"), document.get("pointed_at")
        if document.get("format") != _FORMAT or not isinstance(channel, str) or not isinstance(pointed_at, str):
            return None
        return Intent(channel, pointed_at)

    def forget(self, repository: str, version: str) -> None:
        """There is nothing left to do."""
        with contextlib.suppress(OSError):
            self._place(repository, version).unlink(missing_ok=True)

    def _place(self, repository: str, version: str) -> Path:
        return self._directory / f"{digest_of(f'{repository} {version}'.encode()).hex()}.json"
