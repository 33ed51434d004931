"""Finds the delta packs of an image of which nothing is fetched ahead: beside its first reads, which do not wait.

Where something is fetched ahead the `Prefetcher` does this, with the listing that it needs anyway. One thread, which
ends when the packs are in use, when nobody can be asked, or soon after `close`. Nothing that fails here is an error of
reading.
"""

from __future__ import annotations

import logging
import threading

from oscirc_blockstore.errors import OscircError
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.packs import Packs

log = logging.getLogger(__name__)

SEARCH_S = 20.0


class PackSearch:
    """One search; begins when it is made."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._cancellation = Cancellation()
        self._thread = threading.Thread(target=self._run, name="oscirc-packs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; waits a moment for its thread."""
        self._cancellation.cancel("this image is being closed")
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._packs.find(Deadline.after(SEARCH_S, self._cancellation))
        except OscircError as error:
            log.info("no delta packs could be looked for: %s", error)
        except Exception:  # a mistake of ours must not take reads with it
            log.exception("the search for delta packs ended")
