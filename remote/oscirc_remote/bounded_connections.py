"""urllib3's connections with every read bounded: in time by a deadline, in bytes by an allowance.

urllib3 bounds the silence between two bytes, not an answer that drips, and neither heads nor trailers as a whole. So
the file below its response reader is replaced by one that computes the time left before each `recv` and takes no more
bytes than this answer was allowed. An `Exchange` is one request under way, and the way to end it from another thread.

A name is looked up by `name_lookups`, in the time that connecting may take.

Kept connections that die silently (a cable, a NAT that forgot them) would cost one stall each. So on a kept one the
first byte may take `KEPT_SILENCE_S` at most; and when one has been silent for `SUSPECT_S` and then fails or is ended,
all that were idle in its pool until then are closed rather than used.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from typing import TYPE_CHECKING

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection as connecting

from oscirc_blockstore.errors import OversizedResponseError, UnreachableError
from oscirc_remote import name_lookups
from oscirc_remote.deadlines import Deadline

if TYPE_CHECKING:
    from urllib3._base_connection import BaseHTTPConnection

SUSPECT_S = 1.0
KEPT_SILENCE_S = 3.0
_BUFFER_BYTES = 64 * 1024
_own = threading.local()  # .exchange: the one of this thread, for the connection that urllib3 picks or makes


class Exchange:
    """One request under way: its bounds, what came, and whether somebody ended it."""

    def __init__(self, authority: str, deadline: Deadline, *, stall_s: float, allowance_bytes: int) -> None:
        self.authority = authority
        self.deadline = deadline
        self.stall_s = stall_s
        self.allowance_bytes = allowance_bytes
        self.received_bytes = 0
        self.kept = True  # until a connection is made for it
        self.at_end = False  # whether the other side hung up
        self.socket: socket.socket | None = None
        self.pool: _BoundedPool | None = None
        self.first_byte_s = 0.0  # since the request was sent; 0.0 until it came
        self._sent_at = 0.0
        self._ended = False
        self._counted_bytes = 0

    def uncounted(self) -> int:
        """Bytes that came since this was asked before."""
        count = self.received_bytes - self._counted_bytes
        self._counted_bytes += count
        return count

    def begin(self) -> None:
        """Let the connection that this thread uses next be bounded by this exchange."""
        _own.exchange = self
        self.restart_watch()

    def restart_watch(self) -> None:
        """The request is sent now, not when the connection for it was begun."""
        self._sent_at = time.monotonic()
        self.first_byte_s = 0.0

    def came(self, count: int) -> None:
        """So many bytes came."""
        self.allowance_bytes -= count
        self.received_bytes += count
        if not self.first_byte_s:
            self.first_byte_s = time.monotonic() - self._sent_at

    def finish(self) -> None:
        """Let go of the connection, which may serve another exchange from now on."""
        self.socket = None
        self.pool = None  # which urllib3 closes when nobody refers to it any more

    def end(self) -> None:
        """From another thread: let the read under way fail at once, and every later one.

        Past `SSLSocket.shutdown`, which would turn a read under way into one without TLS.
        """
        self._ended = True
        self.suspect_idle()
        connected = self.socket
        if connected is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def longest_silence_s(self) -> float:
        """Seconds that the next byte may take."""
        doubtful = self.kept and not self.received_bytes
        return min(self.time_left_s(), self.stall_s, KEPT_SILENCE_S if doubtful else self.stall_s)

    def suspect_idle(self) -> None:
        """After a failure: a kept connection that was silent for long says that its likes may be dead as well."""
        if self.kept and not self.received_bytes and self.pool and time.monotonic() - self._sent_at >= SUSPECT_S:
            self.pool.suspect_idle()

    def time_left_s(self) -> float:
        """Seconds until the deadline, more than none; raises when there are none or the exchange was ended."""
        left_s = self.deadline.remaining_s()
        if left_s <= 0:
            raise self.deadline.exceeded(f"{self.authority} did not answer")
        if self._ended:
            raise UnreachableError(f"the connections to {self.authority} were closed")
        return left_s


class _BoundedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, connected: socket.socket, exchange: Exchange) -> None:
        super().__init__()
        self._raw = raw
        self._socket = connected
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a narrower type than typeshed's Buffer
        exchange = self._exchange
        self._socket.settimeout(exchange.longest_silence_s())
        if exchange.allowance_bytes <= 0:
            raise OversizedResponseError(f"{exchange.authority} sent more than an answer may be long")
        try:
            count = self._raw.readinto(memoryview(buffer)[: exchange.allowance_bytes]) or 0
        except TimeoutError:
            exchange.suspect_idle()
            raise exchange.deadline.exceeded(f"{exchange.authority} did not answer") from None
        if not count:
            exchange.time_left_s()  # the end of a read that was ended from outside is not the end of the answer
            exchange.at_end = True
        exchange.came(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None) -> None:
        super().__init__(sock, debuglevel, method)
        exchange: Exchange = _own.exchange
        exchange.socket = sock
        self.fp = io.BufferedReader(_BoundedReader(self.fp.detach(), sock, exchange), _BUFFER_BYTES)


class _Bounded:
    response_class: type[http.client.HTTPResponse] = _BoundedResponse
    idle_since = 0.0

    def connect(self) -> None:
        exchange: Exchange = _own.exchange
        exchange.kept = False
        super().connect()  # type: ignore[misc]  # of the connection that this is mixed into
        exchange.restart_watch()

    def _new_conn(self) -> socket.socket:
        """As urllib3's, but for the time that the name may take; each address may then take as long to connect."""
        assert isinstance(self, HTTPConnection)  # noqa: S101  # what this is mixed into
        limit_s = float(self.timeout or 0)
        try:
            addresses = name_lookups.LOOKUPS.addresses(self._dns_host.strip("[]"), self.port, limit_s)
        except TimeoutError as error:
            late = socket.gaierror(socket.EAI_AGAIN, str(error) or f"the name was not found in {limit_s:.3g} s")
            raise NameResolutionError(self.host, self, late) from late
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except UnicodeError as error:
            raise NewConnectionError(self, f"{self.host!r} cannot be a host's name") from error
        problem: OSError = OSError("the name has no address")
        for address in addresses:
            try:
                return connecting.create_connection(
                    (address, self.port), limit_s, self.source_address, self.socket_options
                )
            except OSError as error:
                problem = error
        if isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {self.host} in {limit_s:.3g} s") from problem
        raise NewConnectionError(self, f"no connection to {self.host}: {problem}") from problem


class _HttpConnection(_Bounded, HTTPConnection):
    pass


class _HttpsConnection(_Bounded, HTTPSConnection):
    pass


class _BoundedPool(HTTPConnectionPool):
    _suspected_at = 0.0

    def suspect_idle(self) -> None:
        """Close the connections that are idle now when they are about to be used."""
        self._suspected_at = time.monotonic()

    def _get_conn(self, timeout: float | None = None) -> BaseHTTPConnection:
        connection = super()._get_conn(timeout)
        if isinstance(connection, _Bounded) and connection.idle_since <= self._suspected_at:
            connection.close()  # urllib3 connects it anew
        exchange: Exchange = _own.exchange
        exchange.pool = self
        return connection

    def _put_conn(self, conn: BaseHTTPConnection | None) -> None:
        if isinstance(conn, _Bounded):
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)


class BoundedHttpPool(_BoundedPool):
    """Bounded connections without TLS."""

    ConnectionCls = _HttpConnection


class BoundedHttpsPool(_BoundedPool, HTTPSConnectionPool):
    """Bounded connections with TLS."""

    ConnectionCls = _HttpsConnection


def last_first_byte_s() -> float:
    """How long the first byte took of what this thread asked for last."""
    exchange: Exchange = _own.exchange
    return exchange.first_byte_s
