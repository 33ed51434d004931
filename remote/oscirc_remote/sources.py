"""The seams of the read path. Each layer implements one and is given the next; none knows what stands below.

A read becomes positions, positions become digests through the table, digests become bytes through these:

- `CachingSource` (cache.py): what is resident at once, the rest through single flights;
- `BlockSource` (mirrors.py): verified bytes, or an error; decodes, fails over, retries until the deadline;
- `FrameSource` (fetching.py): one base URL; bounded bytes, unverified. Nothing above mirrors.py sees a frame.

`DocumentSource` is the like of the last for metadata and manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from oscirc_blockstore.digests import Digest
from oscirc_remote.deadlines import Deadline
from oscirc_remote.status import CacheStatus, MirrorStatus

if TYPE_CHECKING:
    from oscirc_remote.flights import Flight
    from oscirc_remote.origins import Origin


class Urgency(IntEnum):
    """Why a block is fetched; the lower goes first, and what is waited for never queues behind what is not."""

    DEMAND = 0
    """A read waits for it."""
    AHEAD = 1
    """A read will probably want it soon: read-ahead, a profile, what a bundle left out."""
    FILL = 2
    """So that the image will be complete some day; only while nothing else happens."""


class Served(NamedTuple):
    """A block file as it came, unverified, and the seconds between the request and its first byte."""

    frame: bytes
    first_byte_s: float


class FrameSource(Protocol):
    """Block files from one place. What it returns is as long as allowed, and nothing else is known about it."""

    @property
    def name(self) -> str:
        """What messages and status call it: its base URL."""

    @property
    def requests(self) -> int:
        """Requests sent so far."""

    @property
    def received_bytes(self) -> int:
        """Bytes received so far, heads included."""

    def fetch_frame(
        self, digest: Digest, limit_bytes: int, deadline: Deadline, *, stall_s: float, past_caches: bool = False
    ) -> Served:
        """The block file of `digest`, or a `TransportError`.

        At most `limit_bytes` are read; `stall_s` without a byte is a failure, the deadline bounds the whole;
        `past_caches` asks in a way that no HTTP cache has an answer for.
        """

    def close(self) -> None:
        """Drop the connections."""


class DocumentSource(Protocol):
    """Documents from one place, unverified: what the session and the resolver read through."""

    @property
    def name(self) -> str:
        """What messages call it: its base URL."""

    def fetch_document(self, path: str, max_bytes: int, deadline: Deadline) -> bytes:
        """The bytes at `path` below the base URL, at most `max_bytes`, or a `TransportError`."""

    def close(self) -> None:
        """Drop the connections."""


OpenDocuments = Callable[[str], DocumentSource]
"""Opens the documents below a base URL."""


class BlockSource(Protocol):
    """Verified blocks and nodes by digest."""

    def fetch(self, digest: Digest, raw_size: int, deadline: Deadline) -> bytes:
        """Exactly the `raw_size` bytes that hash to `digest`, or an `OscircError`."""

    def mirror_status(self) -> tuple[MirrorStatus, ...]:
        """The places behind this source, in their given order."""

    def close(self) -> None:
        """Let go of what it holds."""


class CachingSource(BlockSource, Protocol):
    """A block source with a memory and a disk behind it."""

    def resident(self, digest: Digest, raw_size: int) -> bytes | None:
        """The verified bytes if memory or disk has them; never the network, never a wait."""

    def has(self, digest: Digest) -> bool:
        """Whether the disk claims to have it; the bytes are judged when they are loaded."""

    def fetch_each(
        self, digests: Iterable[Digest], raw_size: int, new_deadline: Callable[[], Deadline], window: int
    ) -> Iterator[tuple[Digest, bytes]]:
        """Each digest with its bytes, in order, at most `window` of them under way at once."""

    def used(self, digest: Digest) -> None:
        """A read wanted this block."""

    def origin(self, digest: Digest) -> Origin | None:
        """Why it was fetched, if that was in this process."""

    def unused(self, digest: Digest) -> bool:
        """Whether it was fetched ahead in this process, and no read has wanted it so far."""

    def start(self, digests: Sequence[Digest], raw_size: int, deadline: Deadline) -> None:
        """Begin to fetch what is not here and not arriving, for somebody who will ask for it at once."""

    def prefetch(self, digest: Digest, raw_size: int, deadline: Deadline, urgency: Urgency = ...) -> Flight:
        """Have it fetched although nobody waits for it; does not wait either."""

    def status(self) -> CacheStatus:
        """What it has done so far."""
