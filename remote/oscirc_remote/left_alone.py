"""What an earlier version of the image, used on this machine, shows about this one: places that nobody read.

Whoever booted version 1 here and now boots version 2 has in the cache what boots read. A place whose old block is not
here was left alone then, and most likely will be again. So guesses of neighbours pass it over; what is known by its
name (`foresight`) is passed over only where the block is still the same, since a file that was replaced may stand where
something else stood. Measured on a Debian 12 before and after an upgrade: of 96 blocks that the boot of the new version
lacked none stood unchanged in the old one; of 29 that were fetched in vain, 21 did.

The old version may have been looked at only, not booted, and what is done today may be new. So reads bear witness:
each first read of an unchanged block that was not here raises a doubt, each that was here allays a quarter of one, and
in doubt nothing is passed over. Only what is here of the old table is looked at, nothing is fetched for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from oscirc_blockstore.digests import ZERO_DIGEST, Digest
from oscirc_blockstore.manifest import Manifest
from oscirc_remote.receipts import ReceiptBook
from oscirc_remote.table_view import LoadNode, TableView

DOUBTFUL, MOST_DOUBT, ALLAYED = 3.0, 6.0, 0.25


class LeftAlone:
    """Of one image, and the version of it that was used before, if any. Safe for threads.

    `nodes` gives the nodes of tables that are here; `has` says whether a block is.
    """

    def __init__(
        self, table: TableView, earlier: TableView | None, nodes: LoadNode, has: Callable[[Digest], bool]
    ) -> None:
        self._table = table
        self._earlier = earlier
        self._nodes = nodes
        self._has = has
        self._lock = threading.Lock()
        self._doubt = 0.0

    @property
    def holds(self) -> bool:
        """Whether there is an earlier version, and reads bear out that it was used as this one is."""
        return self._earlier is not None and self._doubt < DOUBTFUL

    def passes_guess(self, position: int) -> bool:
        """Whether a guess that this will be read is to be passed over."""
        return self.holds and self._was_left(position)

    def passes_foreseen(self, position: int) -> bool:
        """The same of what is foreseen by its name."""
        return self.holds and self._was_left(position) and self._is_unchanged(position)

    def note(self, position: int, *, present: bool) -> None:
        """A block was read for the first time, and was here or not."""
        if self._earlier is not None and self._is_unchanged(position):
            with self._lock:
                change = -ALLAYED if present else 1.0
                self._doubt = min(max(self._doubt + change, 0.0), MOST_DOUBT)

    def weigh(self, foreseen: Iterable[int]) -> None:
        """A boot will read these: where most of what stands unchanged is not here, nobody has booted that version."""
        unchanged = [position for position in foreseen if self._is_unchanged(position)]
        if 2 * sum(map(self._was_left, unchanged)) > len(unchanged):
            with self._lock:
                self._doubt = MOST_DOUBT

    def _was_left(self, position: int) -> bool:
        digest = self._earlier_digest(position)
        return digest is not None and digest != ZERO_DIGEST and not self._has(digest)

    def _is_unchanged(self, position: int) -> bool:
        digest = self._earlier_digest(position)
        return digest not in {None, ZERO_DIGEST} and digest == self._table.digest_at(position, self._nodes)

    def _earlier_digest(self, position: int) -> Digest | None:
        earlier = self._earlier
        if earlier is None or position >= earlier.geometry.block_count:
            return None
        return earlier.digest_at(position, self._nodes)


def earlier_table(book: ReceiptBook, publisher: str, image: str, manifest: Manifest) -> TableView | None:
    """The table of the version of an image that was verified here last, other than `manifest`; None where none was."""
    for receipt in sorted(book.of(publisher, image), key=lambda receipt: receipt.verified, reverse=True):
        other = book.manifest(receipt.manifest)
        if other is None or other.root == manifest.root:
            continue
        if other.geometry.block_size == manifest.geometry.block_size:
            return TableView(other.geometry, other.root)
    return None
