"""A small NBD client: reads and allocation status over a connected socket.

Fixed newstyle handshake, structured replies and the `base:allocation` context: what `qemu-nbd` offers, and nothing
else is accepted. The other end has parsed a stranger's container, so its answers are bounded and checked too: every
length against what was asked, every wait by the socket's timeout. One request at a time; not for several threads.

Source: doc/proto.md of the NBD project. All numbers are big endian.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from oscirc_blockstore.errors import LocalError

TIMEOUT_S = 60.0
MAX_READ_BYTES = 4 << 20
MAX_STATUS_BYTES = 1 << 30

_GREETING = b"NBDMAGICIHAVEOPT"
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_CHUNK = struct.Struct(">IHHQI")
_CHUNK_MAGIC = 0x668E33EF

_FIXED_NEWSTYLE_NO_ZEROES = 3
_OPT_GO, _OPT_STRUCTURED_REPLY, _OPT_SET_META_CONTEXT = 7, 8, 10
_REP_ACK, _REP_INFO, _REP_META_CONTEXT = 1, 3, 4
_REP_ERROR = 1 << 31
_CMD_READ, _CMD_DISCONNECT, _CMD_BLOCK_STATUS = 0, 2, 7
_CHUNK_NONE, _CHUNK_DATA, _CHUNK_HOLE, _CHUNK_STATUS = 0, 1, 2, 5
_CHUNK_ERROR = 1 << 15
_FLAG_DONE = 1
_STATE_ZERO = 2
_MAX_OPTION_REPLY_BYTES = 64 << 10
_ALLOCATION = b"base:allocation"


@dataclass(frozen=True, slots=True)
class Allocation:
    """`size` bytes from the place asked about, which either read as zeros or may hold data."""

    size: int
    zero: bool


class NbdConnection:
    """One connection to the default export; `export_size` in bytes. Raises `LocalError` for whatever goes wrong."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(TIMEOUT_S)
        self._cookie = 0
        self.export_size = 0
        try:
            self._handshake()
        except BaseException:
            self._socket.close()
            raise

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, at most `MAX_READ_BYTES`."""
        buffer = bytearray(size)
        covered = 0
        for kind, payload_size in self._ask(_CMD_READ, offset, size):
            if kind == _CHUNK_DATA and payload_size > 8:  # noqa: PLR2004
                (at,) = struct.unpack(">Q", self._receive(8))
                start, length = at - offset, payload_size - 8
                if not 0 <= start <= start + length <= size:
                    raise _broken("data outside the request")
                self._receive_into(memoryview(buffer)[start : start + length])
            elif kind == _CHUNK_HOLE and payload_size == 12:  # noqa: PLR2004
                at, length = struct.unpack(">QI", self._receive(12))
                if not 0 <= at - offset < at - offset + length <= size:
                    raise _broken("a hole outside the request")
            else:
                raise _broken(f"reply type {kind} to a read")
            covered += length
        if covered != size:
            raise _broken(f"{covered} bytes for a read of {size}")
        return bytes(buffer)

    def status(self, offset: int, size: int) -> list[Allocation]:
        """What stands in at most `size` bytes from `offset`: at least one entry, possibly covering less."""
        found: list[Allocation] = []
        for kind, payload_size in self._ask(_CMD_BLOCK_STATUS, offset, size):
            if kind != _CHUNK_STATUS or payload_size % 8 != 4 or payload_size > MAX_READ_BYTES or found:  # noqa: PLR2004
                raise _broken(f"reply type {kind} to a status request")
            payload = self._receive(payload_size)
            left = size
            for length, flags in struct.iter_unpack(">II", payload[4:]):
                if not length or not left:
                    raise _broken("impossible lengths in a status reply")
                found.append(Allocation(min(length, left), bool(flags & _STATE_ZERO)))
                left -= found[-1].size
        if not found:
            raise _broken("an empty status reply")
        return found

    def close(self) -> None:
        """Says good-bye if that is possible; idempotent."""
        try:
            self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_DISCONNECT, 0, 0, 0))
        except OSError:
            pass
        finally:
            self._socket.close()

    def _handshake(self) -> None:
        if self._receive(16) != _GREETING or struct.unpack(">H", self._receive(2))[0] & 3 != _FIXED_NEWSTYLE_NO_ZEROES:
            raise _broken("an unknown greeting")
        self._send(struct.pack(">I", _FIXED_NEWSTYLE_NO_ZEROES))
        self._option(_OPT_STRUCTURED_REPLY, b"")
        contexts = self._option(
            _OPT_SET_META_CONTEXT, struct.pack(">III", 0, 1, len(_ALLOCATION)) + _ALLOCATION, _REP_META_CONTEXT
        )
        if [context[4:] for context in contexts] != [_ALLOCATION]:
            raise _broken("no allocation status")
        for info in self._option(_OPT_GO, struct.pack(">IH", 0, 0), _REP_INFO):
            if info[:2] == b"\0\0" and len(info) == 12:  # noqa: PLR2004
                (self.export_size,) = struct.unpack(">Q", info[2:10])

    def _option(self, option: int, payload: bytes, information: int = -1) -> list[bytes]:
        """Sends an option; returns the payloads of `information` replies that came before the acknowledgement."""
        self._send(_OPTION.pack(b"IHAVEOPT", option, len(payload)) + payload)
        collected: list[bytes] = []
        while len(collected) < 16:  # noqa: PLR2004
            magic, echoed, kind, length = _OPTION_REPLY.unpack(self._receive(_OPTION_REPLY.size))
            if magic != _OPTION_REPLY_MAGIC or echoed != option or length > _MAX_OPTION_REPLY_BYTES:
                raise _broken("a malformed option reply")
            data = self._receive(length)
            if kind == _REP_ACK:
                return collected
            if kind & _REP_ERROR or kind != information:
                raise _broken(f"option {option} refused: {data.decode(errors='replace')[:200]}")
            collected.append(data)
        raise _broken("endless option replies")

    def _ask(self, command: int, offset: int, size: int) -> _Chunks:
        self._cookie += 1
        self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, command, self._cookie, offset, size))
        return _Chunks(self, self._cookie)

    def next_chunk(self, cookie: int) -> tuple[int, int, bool]:
        """(type, payload size, last one); the payload is the caller's to receive."""
        magic, flags, kind, echoed, length = _CHUNK.unpack(self._receive(_CHUNK.size))
        if magic != _CHUNK_MAGIC or echoed != cookie:
            raise _broken("a malformed reply")
        if kind & _CHUNK_ERROR:
            payload = self._receive(min(length, _MAX_OPTION_REPLY_BYTES))
            raise LocalError(f"the container cannot be read: {payload[6:].decode(errors='replace')[:200] or 'error'}")
        return kind, length, bool(flags & _FLAG_DONE)

    def _send(self, raw: bytes) -> None:
        try:
            self._socket.sendall(raw)
        except OSError as error:
            raise _broken(str(error)) from None

    def _receive(self, size: int) -> bytes:
        buffer = bytearray(size)
        self._receive_into(memoryview(buffer))
        return bytes(buffer)

    def _receive_into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except OSError as error:
                raise _broken(str(error)) from None
            if not count:
                raise _broken("the connection ended")
            view = view[count:]


class _Chunks:
    """Iterates the chunks of one reply; an empty NONE chunk only carries the end."""

    def __init__(self, connection: NbdConnection, cookie: int) -> None:
        self._connection, self._cookie, self._done = connection, cookie, False

    def __iter__(self) -> _Chunks:
        return self

    def __next__(self) -> tuple[int, int]:
        while not self._done:
            kind, length, self._done = self._connection.next_chunk(self._cookie)
            if kind != _CHUNK_NONE:
                return kind, length
            if length:
                raise _broken("a reply that ends with a payload")
        raise StopIteration


def _broken(what: str) -> LocalError:
    return LocalError(f"qemu-nbd does not answer as it should: {what}")
