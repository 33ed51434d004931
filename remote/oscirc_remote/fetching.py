"""Block files and documents from one base URL over HTTP: the lowest layer of both halves of the room."""

from __future__ import annotations

from oscirc_blockstore.digests import Digest, block_path
from oscirc_remote.bounded_connections import last_first_byte_s
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_client import CONNECT_S, HttpClient
from oscirc_remote.rate_limits import RateLimit
from oscirc_remote.sources import Served


class HttpFrameSource:
    """A `FrameSource` over `<base_url>/blocks/sha256/…`; connections are shared by the threads that fetch."""

    def __init__(self, base_url: str, *, connect_s: float = CONNECT_S, rate_limit: RateLimit | None = None) -> None:
        self._client = HttpClient(base_url, connect_s=connect_s, rate_limit=rate_limit)

    @property
    def name(self) -> str:
        """The base URL."""
        return self._client.base_url

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._client.counters["requests"]

    @property
    def received_bytes(self) -> int:
        """Bytes received so far, heads included."""
        return self._client.counters["received_bytes"]

    def fetch_frame(
        self, digest: Digest, limit_bytes: int, deadline: Deadline, *, stall_s: float, past_caches: bool = False
    ) -> Served:
        """The block file of `digest`, at most `limit_bytes` long, or a `TransportError`.

        `past_caches` asks for `?bad=<digest>`, which a poisoned HTTP cache on the way has no answer for.
        """
        query = f"bad={digest.hex()}" if past_caches else ""
        frame = self._client.get(block_path(digest), limit_bytes, deadline, stall_s=stall_s, query=query)
        return Served(frame, last_first_byte_s())

    def close(self) -> None:
        """Drop the kept connections."""
        self._client.close()


class HttpDocumentSource:
    """Documents (metadata, roots, manifests) below one base URL; who asks for one verifies it."""

    def __init__(self, base_url: str) -> None:
        self._client = HttpClient(base_url)

    @property
    def name(self) -> str:
        """The base URL."""
        return self._client.base_url

    def fetch_document(self, path: str, max_bytes: int, deadline: Deadline) -> bytes:
        """The bytes at `path` (already quoted), at most `max_bytes`, or a `TransportError`."""
        return self._client.get(path, max_bytes, deadline)

    def close(self) -> None:
        """Drop the kept connections."""
        self._client.close()
