"""The other end of an NBD connection has parsed a stranger's container: whatever it says is judged."""

import contextlib
import socket
import struct
import threading

import pytest

from oscirc_blockstore.errors import LocalError
from oscirc_publisher.nbd import Allocation, NbdConnection

SIZE = 1 << 20


def option_reply(option, kind, data=b""):
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data


GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
STRUCTURED = option_reply(8, 1)
CONTEXT = option_reply(10, 4, struct.pack(">I", 1) + b"base:allocation") + option_reply(10, 1)
GO = option_reply(7, 3, struct.pack(">HQH", 0, SIZE, 1)) + option_reply(7, 1)


def chunk(kind, payload=b"", *, done=True, cookie=1, length=None, magic=0x668E33EF):
    size = len(payload) if length is None else length
    return struct.pack(">IHHQI", magic, int(done), kind, cookie, size) + payload


def data(offset, raw, **options):
    return chunk(1, struct.pack(">Q", offset) + raw, **options)


def hole(offset, size, **options):
    return chunk(2, struct.pack(">QI", offset, size), **options)


def status(*entries, **options):
    return chunk(5, struct.pack(">I", 1) + b"".join(struct.pack(">II", *entry) for entry in entries), **options)


class Peer:
    """Says these bytes at once, keeps what it hears, and hangs up after them."""

    def __init__(self, said):
        self.heard = b""
        self.ours, self.theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._speak, args=(said,), daemon=True)
        self._thread.start()

    def _speak(self, said):
        with self.theirs, contextlib.suppress(OSError):  # the client may hang up first
            self.theirs.sendall(said)
            self.theirs.shutdown(socket.SHUT_WR)
            while received := self.theirs.recv(65536):
                self.heard += received

    def connection(self):
        return NbdConnection(self.ours)

    def join(self):
        self._thread.join(10)


def connected(*replies):
    return Peer(GREETING + STRUCTURED + CONTEXT + GO + b"".join(replies)).connection()


def test_a_connection_learns_the_size_and_says_good_bye():
    peer = Peer(GREETING + STRUCTURED + CONTEXT + GO)
    connection = peer.connection()
    assert connection.export_size == SIZE
    connection.close()
    connection.close()
    peer.join()
    assert peer.heard.endswith(struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0))


def test_a_read_is_put_together_from_data_and_holes_in_any_order():
    connection = connected(
        data(108, b"efgh", done=False), hole(104, 4, done=False), data(100, b"abcd", done=False), chunk(0)
    )
    assert connection.read(100, 12) == b"abcd\0\0\0\0efgh"
    connection.close()


def test_status_is_cut_to_what_was_asked():
    connection = connected(status((4096, 0), (8192, 3), (1 << 31, 0)))
    assert connection.status(0, 16384) == [
        Allocation(4096, zero=False),
        Allocation(8192, zero=True),
        Allocation(4096, zero=False),
    ]
    connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        data(99, b"abcd"),
        data(102, b"abcd"),
        data(1 << 63, b"abcd"),
        data(100, b"ab"),
        data(100, b"abcdefgh"),
        hole(100, 5),
        hole(100, 0),
        hole(99, 4),
        hole(100, 4, cookie=2),
        hole(100, 4, magic=0x67446698),
        chunk(1, b"1234567"),
        chunk(2, b""),
        chunk(0, b"x"),
        chunk(5, bytes(12)),
        chunk(77, b""),
        chunk(0),
        data(100, b"abcd", done=False) + data(100, b"abcd"),
        data(100, b"ab")[:20],
        b"",
    ],
    ids=lambda raw: raw.hex()[:120] or "nothing",
)
def test_a_reply_to_a_read_that_is_none_is_refused(reply):
    connection = connected(reply)
    with pytest.raises(LocalError):
        connection.read(100, 4)
    connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        status(),
        status((0, 0)),
        status((4096, 0), done=False) + status((4096, 0)),
        status((8192, 0), (1, 0)),
        chunk(5, bytes(7)),
        chunk(5, b"", length=1 << 31),
        chunk(1, bytes(12)),
        chunk(0),
        b"",
    ],
    ids=lambda raw: raw.hex()[:120] or "nothing",
)
def test_a_status_that_is_none_is_refused(reply):
    connection = connected(reply)
    with pytest.raises(LocalError):
        connection.status(0, 8192)
    connection.close()


def test_an_error_is_told_in_its_own_words():
    connection = connected(chunk(0x8001, struct.pack(">IH", 5, 9) + b"bad table"))
    with pytest.raises(LocalError, match="bad table"):
        connection.read(0, 4)
    connection.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"NBDMAGICIHAVEOPT" + struct.pack(">H", 0),
        GREETING + option_reply(8, 1 << 31 | 1, b"unsupported"),
        GREETING + option_reply(7, 1),
        GREETING + STRUCTURED[:-4] + struct.pack(">I", 1 << 30),
        GREETING + STRUCTURED + option_reply(10, 1),
        GREETING + STRUCTURED + option_reply(10, 4, b"\0\0\0\1other") + option_reply(10, 1),
        GREETING + STRUCTURED + CONTEXT + option_reply(7, 1 << 31 | 6, b"no export"),
        GREETING + STRUCTURED + option_reply(10, 4, b"\0\0\0\1base:allocation") * 40,
    ],
    ids=lambda raw: raw.hex()[:120] or "nothing",
)
def test_a_greeting_that_is_none_is_refused_and_the_socket_closed(said):
    peer = Peer(said)
    with pytest.raises(LocalError):
        peer.connection()
    assert peer.ours.fileno() == -1
    peer.join()


def test_an_answer_that_does_not_come_is_waited_for_within_bounds(monkeypatch):
    monkeypatch.setattr("oscirc_publisher.nbd.TIMEOUT_S", 0.05)
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(LocalError, match="timed out"):
        NbdConnection(ours)
