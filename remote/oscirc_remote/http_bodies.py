"""The body of an HTTP answer, read whole or piece by piece, and urllib3's failures in the words of this project."""

from __future__ import annotations

import http.client
import ssl

from urllib3 import BaseHTTPResponse
from urllib3 import exceptions as problems

from oscirc_blockstore.errors import (
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.bounded_connections import Exchange
from oscirc_remote.counters import Counters
from oscirc_remote.rate_limits import RateLimit

PIECE_BYTES = 1 << 20
PARTIAL = 206


class Body:
    """The body of an answer, read as it comes; its failures are `TransportError`s."""

    def __init__(
        self, response: BaseHTTPResponse, exchange: Exchange, counters: Counters, rate_limit: RateLimit | None
    ) -> None:
        authority = exchange.authority
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise ServerRefusedError(f"{authority} sent the encoding {encoding[:40]!r} unasked", status=response.status)
        if response.headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise TransportError(f"{authority} sent an unknown transfer encoding")
        self._response = response
        self._exchange = exchange
        self._counters = counters
        self._rate_limit = rate_limit

    @property
    def status(self) -> int:
        """200 or 206."""
        return self._response.status

    def check_range(self, start: int, stop: int) -> None:
        """Raise `ServerRefusedError` unless this answer begins at `start`.

        That is what its Content-Range says; without one, a whole file (200) begins at 0. A range with status 200 is not
        what RFC 9110 asks for, but rclone's S3 server answers so, and what comes is verified in any case.
        """
        stated = self._response.headers.get("content-range", "")
        if not stated.startswith(f"bytes {start}-{stop - 1}/") and (self.status == PARTIAL or start):
            raise ServerRefusedError(
                f"{self._exchange.authority} does not answer requests for ranges: {stated[:80]!r}", status=self.status
            )

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`, as soon as there are any; empty at the end."""
        try:
            piece = self._response.read1(size)
        except (problems.HTTPError, OSError, ValueError) as error:
            raise translated(error, self._exchange) from None
        return self._came(piece)

    def read_all(self, limit_bytes: int) -> bytes:
        """All of it, refused as soon as it is known to be longer than allowed."""
        authority, length = self._exchange.authority, self._response.length_remaining
        if length is not None and length > limit_bytes:
            raise OversizedResponseError(f"{authority} declares {length} bytes where {limit_bytes} are allowed")
        pieces: list[bytes] = []
        received_bytes = 0
        try:
            while piece := self._response.read(min(PIECE_BYTES, limit_bytes + 1 - received_bytes)):
                pieces.append(self._came(piece))
                received_bytes += len(piece)
                if received_bytes > limit_bytes:
                    raise OversizedResponseError(f"{authority} sent more than the {limit_bytes} bytes allowed")
                if received_bytes == length:
                    break
        except (problems.HTTPError, OSError, ValueError) as error:
            raise translated(error, self._exchange) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _came(self, piece: bytes) -> bytes:
        self._counters.add("received_bytes", self._exchange.uncounted())
        if self._rate_limit is not None and piece:
            self._rate_limit.spend(len(piece), self._exchange.deadline)
        return piece


def translated(error: Exception, exchange: Exchange) -> TransportError:
    """What urllib3 raised, in the words of this project."""
    authority = exchange.authority
    wraps = isinstance(error, (problems.ProtocolError, problems.SSLError, problems.ProxyError)) and error.args
    cause = error.args[-1] if wraps else error.__cause__ or error
    told = str(getattr(cause, "strerror", None) or cause)[:200]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TransportError(
            f"the certificate of {authority} is not valid: {cause.verify_message}",
            hint="look at this machine's clock, and at who is between it and the server",
        )
    if isinstance(error, (problems.NewConnectionError, problems.SSLError, problems.ProxyError)):
        return UnreachableError(f"cannot reach {authority}: {told}")
    if isinstance(error, problems.TimeoutError):
        return exchange.deadline.exceeded(f"{authority} did not answer")
    malformed = isinstance(cause, http.client.HTTPException) and not isinstance(cause, http.client.IncompleteRead)
    if isinstance(error, (problems.ProtocolError, OSError)) and (isinstance(cause, OSError) or not malformed):
        return UnreachableError(f"{authority} broke off: {told}")
    return TransportError(f"{authority} does not speak HTTP/1.1 as it should: {told}")
