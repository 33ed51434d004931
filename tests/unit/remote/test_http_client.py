"""The bounds and the errors, over socket pairs: a scripted peer on the other end, no network."""

import contextlib
import os
import socket
import threading
import time

import pytest
from urllib3.util import connection

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    NotServedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote import name_lookups
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.http_client import HttpClient
from oscirc_remote.name_lookups import NameLookups


def soon():
    return Deadline.after(20)


class Peers:
    """What connecting leads to: each new connection gets the next scripted answer, then the other end stays open."""

    def __init__(self):
        self.scripts = []
        self.ends = []
        self.addresses = []
        self.serve = None

    def connect(self, address, *_, **__):
        self.addresses.append(address)
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.ends.append(theirs)
        script = self.scripts.pop(0)
        theirs.sendall(script.removesuffix(b"<EOF>"))
        if script.endswith(b"<EOF>"):
            theirs.shutdown(socket.SHUT_WR)
        if self.serve is not None:
            threading.Thread(target=self.serve, args=(theirs,), daemon=True).start()
        return ours

    def received(self, number=0):
        return self.ends[number].recv(65536)


@pytest.fixture
def peers(monkeypatch):
    peers = Peers()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(connection, "create_connection", peers.connect)
    monkeypatch.setattr(name_lookups, "LOOKUPS", NameLookups(lambda host, _port: (host,)))
    yield peers
    for end in peers.ends:
        end.close()


@pytest.fixture
def client():
    client = HttpClient("http://mirror.example/repo/")
    yield client
    client.close()


def answer(body=b"block", head=b"", status=b"200 OK", length=None):
    length = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, length, head, body)


def test_a_body_comes_back_and_the_connection_is_used_again(peers, client):
    peers.scripts = [answer()]
    assert client.get("a", 10, soon()) == b"block"
    assert peers.received() == (
        b"GET /repo/a HTTP/1.1\r\nHost: mirror.example\r\n"
        b"User-Agent: oscirc\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n"
    )
    peers.ends[0].sendall(answer(b"other"))
    # what is there before it was asked for is junk: a new connection is made
    peers.scripts = [answer(b"third")]
    assert client.get("b", 10, soon()) == b"third"
    assert client.counters["requests"] == 2
    assert client.counters["received_bytes"] == len(answer()) + len(answer(b"third"))


def test_a_quiet_connection_is_kept(peers, client):
    peers.scripts = [answer()]
    client.get("a", 10, soon())
    assert peers.received()
    server = threading.Thread(target=lambda: (peers.received(), peers.ends[0].sendall(answer(b"again"))))
    server.start()
    assert client.get("b", 10, soon()) == b"again"
    server.join()
    assert len(peers.ends) == 1


def test_a_kept_connection_that_was_closed_is_replaced(peers, client):
    peers.scripts = [answer(), answer(b"fresh")]
    client.get("a", 10, soon())
    peers.ends[0].close()
    assert client.get("b", 10, soon()) == b"fresh"


def test_a_query_asks_caches_to_step_aside(peers, client):
    peers.scripts = [answer()]
    client.get("a", 10, soon(), query="bad=1")
    request = peers.received()
    assert request.startswith(b"GET /repo/a?bad=1 HTTP/1.1\r\n")
    assert b"Cache-Control: no-cache\r\n" in request


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nblo\r\n2;x=y\r\nck\r\n0\r\nX: y\r\n\r\n",
            b"block",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nblock<EOF>", b"block"),
        (b"HTTP/1.0 200\r\nContent-Length: 5\r\n\r\nblock", b"block"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), b"block"),
        (answer(head=b"X-Many: 1\r\nX-Many: 2\r\n"), b"block"),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nblock", b"block"),
        (answer(b""), b""),
    ],
)
def test_every_lawful_framing_is_understood(peers, client, script, body):
    peers.scripts = [script]
    assert client.get("a", 10, soon()) == body


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (answer(length=11, body=b"x" * 11), OversizedResponseError),
        (answer(length=1 << 40), OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11 + b"<EOF>", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nblocksblocks", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nblocks\r\n6\r\nblocks", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nblockX<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nblockXXX\r\n", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransportError),
        (answer(length=8) + b"<EOF>", UnreachableError),
        (b"<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Le<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nblocksblocks", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nblock", TransportError),
        (b"HTTP/2 200\r\n\r\n", TransportError),
        (b"SSH-2.0-OpenSSH\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", TransportError),
        (b"x" * 65_537, TransportError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65_537, OversizedResponseError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, OversizedResponseError),
        (answer(head=b"Content-Encoding: gzip\r\n"), ServerRefusedError),
        (answer(status=b"404 Not Found"), NotServedError),
        (answer(status=b"410 Gone"), NotServedError),
        (answer(status=b"503 Busy"), ServerRefusedError),
        (answer(status=b"403 Forbidden"), ServerRefusedError),
        (answer(status=b"204 No Content", body=b""), ServerRefusedError),
        (answer(status=b"206 Partial"), ServerRefusedError),
        (answer(status=b"304 Not Modified", body=b""), ServerRefusedError),
        (answer(status=b"302 Found", body=b""), ServerRefusedError),
    ],
)
def test_anything_else_is_an_error_of_transport(peers, client, script, error):
    peers.scripts = [script]
    with pytest.raises(TransportError) as raised:
        client.get("a", 10, soon())
    assert type(raised.value) is error


def test_an_error_with_an_endless_body_is_not_read(peers, client):
    peers.scripts = [answer(status=b"404 Not Found", body=b"x" * 100_000, length=1 << 40)]
    with pytest.raises(NotServedError):
        client.get("a", 10, soon())
    assert client.counters["received_bytes"] < 100_000


def test_the_connection_is_kept_after_an_error_with_a_short_body(peers, client):
    peers.scripts = [answer(status=b"404 Not Found")]

    def answer_the_second(end):
        asked = b""
        while asked.count(b"\r\n\r\n") < 2:
            asked += end.recv(65536)
        end.sendall(answer(b"again"))

    peers.serve = answer_the_second
    with pytest.raises(NotServedError):
        client.get("a", 10, soon())
    assert client.get("b", 10, soon()) == b"again"
    assert len(peers.ends) == 1


def test_an_endless_answer_is_cut_at_what_was_allowed(peers, client):
    peers.scripts = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]

    def flood(end):
        with contextlib.suppress(OSError):
            while True:
                end.sendall(b"1;" + b"x" * 8000 + b"\r\ny\r\n")

    peers.serve = flood
    with pytest.raises(OversizedResponseError):
        client.get("a", 1 << 20, soon())
    assert client.counters["received_bytes"] < (1 << 20) + (1 << 18)


@pytest.mark.parametrize("script", [b"", b"HTTP/1.1 200 OK\r\n", answer(length=8)])
def test_silence_is_bounded(peers, client, script):
    peers.scripts = [script]
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10, soon(), stall_s=0.01)


def drip(end):
    with contextlib.suppress(OSError):
        while True:
            end.sendall(b"y")
            threading.Event().wait(0.01)


DRIPPING = [
    b"HTTP/1.1 200 OK\r\nX: ",
    answer(length=8000),
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
]


@pytest.mark.parametrize("script", DRIPPING)
def test_a_dripping_answer_is_bounded_by_the_deadline(peers, client, script):
    peers.scripts = [script]
    peers.serve = drip
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10_000, Deadline.after(0.1), stall_s=5)
    assert time.monotonic() - started < 5


def test_a_refusal_that_drips_is_not_read_to_its_end(peers, client):
    peers.scripts = [answer(status=b"503 Busy", length=4000)]
    peers.serve = drip
    started = time.monotonic()
    with pytest.raises(ServerRefusedError):
        client.get("a", 10_000, Deadline.after(60), stall_s=60)
    assert time.monotonic() - started < 20  # its body would take 40


@pytest.mark.parametrize("script", [b"", *DRIPPING])
def test_a_cancellation_ends_a_request_that_waits(peers, client, script):
    peers.scripts = [script]
    cancellation = Cancellation()
    peers.serve = lambda end: (end.recv(65536), cancellation.cancel("the guest stops"))
    with pytest.raises(DeadlineExceededError, match="the guest stops"):
        client.get("a", 10_000, Deadline.after(20, cancellation), stall_s=20)


def test_a_deadline_that_has_passed_sends_nothing(peers, client):
    peers.scripts = [answer()]
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10, Deadline.after(-1))


def test_redirects_are_followed_also_to_other_hosts(peers, client):
    def moved(location, status):
        return answer(b"", head=b"Connection: close\r\nLocation: " + location + b"\r\n", status=status)

    peers.scripts = [
        moved(b"/elsewhere?x=1", b"302 Found"),
        moved(b"http://cdn.example:8080/b", b"308 Permanent Redirect"),
        answer(b"moved"),
    ]
    assert client.get("a", 10, soon()) == b"moved"
    assert peers.addresses == [("mirror.example", 80)] * 2 + [("cdn.example", 8080)]
    assert peers.received(1).startswith(b"GET /elsewhere?x=1 HTTP/1.1\r\nHost: mirror.example\r\n")


@pytest.mark.parametrize("location", [b"file:///etc/passwd", b"ftp://x/y", b"http://[broken/"])
def test_redirects_lead_to_http_only(peers, client, location):
    peers.scripts = [answer(b"", head=b"Location: " + location + b"\r\n", status=b"302 Found")]
    with pytest.raises(TransportError) as raised:
        client.get("a", 10, soon())
    assert not raised.value.retryable
    assert len(peers.ends) == 1


def test_a_loop_of_redirects_ends(peers, client):
    loop = answer(b"", head=b"Location: http://other.example/\r\nConnection: close\r\n", status=b"302 Found")
    peers.scripts = [loop] * 10
    with pytest.raises(TransportError, match="redirects more than"):
        client.get("a", 10, soon())


@pytest.mark.parametrize("path", ["a b", "a\r\nX: y", "ä"])
def test_an_address_cannot_break_the_request(peers, client, path):
    peers.scripts = [answer()]
    client.get(path, 10, soon())
    head = peers.received().split(b"\r\n")
    assert head[0].count(b" ") == 2
    assert head[0].isascii()
    assert head[1] == b"Host: mirror.example"


def test_closing_drops_what_is_kept_and_asks_for_nothing_more(peers, client):
    peers.scripts = [answer(), answer()]
    client.get("a", 10, soon())
    peers.received()
    client.close()
    assert peers.received() == b""
    with pytest.raises(UnreachableError, match="closed"):
        client.get("a", 10, soon())


def test_closing_ends_a_request_that_waits(peers, client):
    peers.scripts = [b""]
    failed = threading.Event()

    def ask():
        try:
            client.get("a", 10, soon(), stall_s=20)
        except UnreachableError:
            failed.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while not peers.ends:
        pass
    assert peers.received()
    client.close()
    assert failed.wait(10)
    thread.join()


@pytest.mark.parametrize("url", ["http://host:99999", "http://", "gopher://host", "http://" + "a" * 300])
def test_origins_that_cannot_be_are_refused(url):
    with pytest.raises(TransportError):
        HttpClient(url).get("a", 10, soon())


def test_an_address_that_nobody_listens_on_is_unreachable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(UnreachableError, match="cannot reach"):
            HttpClient(f"http://127.0.0.1:{port}").get("a", 10, soon())


def test_a_name_that_is_not_known_is_unreachable(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(connection.socket, "getaddrinfo", unknown)
    with pytest.raises(UnreachableError, match="cannot reach unknown"):
        HttpClient("http://unknown.example").get("a", 10, soon())


def test_a_name_that_takes_too_long_is_unreachable_while_it_is_still_being_looked_up(monkeypatch):
    found = threading.Event()

    def hangs(_host, _port):
        found.wait()
        return ()

    lookups = NameLookups(hangs)
    monkeypatch.setattr(name_lookups, "LOOKUPS", lookups)
    try:
        with pytest.raises(UnreachableError, match=r"cannot reach slow\.example.* not found in 0\.05 s"):
            HttpClient("http://slow.example", connect_s=0.05).get("a", 10, soon())
        with pytest.raises((DeadlineExceededError, UnreachableError)):
            HttpClient("http://slow.example").get("a", 10, Deadline.after(0.05))
    finally:
        found.set()
        lookups.settle(20)


def test_the_addresses_of_a_name_are_tried_in_turn(peers, client, monkeypatch):
    monkeypatch.setattr(name_lookups, "LOOKUPS", NameLookups(lambda _host, _port: ("::1", "127.0.0.2")))
    peers.scripts.append(answer())

    def connect(address, *how, **options):
        if address[0] == "::1":
            raise ConnectionRefusedError(111, "Connection refused")
        return peers.connect(address, *how, **options)

    monkeypatch.setattr(connection, "create_connection", connect)
    assert client.get("a", 10, soon()) == b"block"
    assert peers.addresses == [("127.0.0.2", 80)]
    assert b"Host: mirror.example\r\n" in peers.received()


@pytest.mark.parametrize("addresses", [(), ("127.0.0.2", "127.0.0.3")])
def test_a_name_without_an_address_that_answers_is_unreachable(peers, client, monkeypatch, addresses):
    def refuse(*_, **__):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(name_lookups, "LOOKUPS", NameLookups(lambda _host, _port: addresses))
    monkeypatch.setattr(connection, "create_connection", refuse)
    with pytest.raises(UnreachableError, match=r"cannot reach mirror\.example"):
        client.get("a", 10, soon())


def test_what_cannot_be_a_name_is_said(monkeypatch):
    monkeypatch.setattr(name_lookups, "LOOKUPS", NameLookups())
    with pytest.raises(UnreachableError, match="label empty or too long"):
        HttpClient(f"http://{'a' * 70}.example").get("a", 10, soon())


class TestProxies:
    """Proxies of the environment, by a scripted one."""

    def test_plain_requests_name_the_whole_address(self, peers, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://user:p%40ss@proxy.example:3128")
        client = HttpClient("http://server.example/repo")
        peers.scripts = [answer()]
        assert client.get("a", 10, soon()) == b"block"
        assert peers.addresses == [("proxy.example", 3128)]
        request = peers.received().lower()
        assert request.startswith(b"get http://server.example/repo/a http/1.1\r\n")
        assert b"\r\nhost: server.example\r\n" in request
        assert b"\r\nproxy-authorization: basic dxnlcjpwqhnz\r\n" in request
        client.close()

    def test_no_proxy_is_obeyed(self, peers, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
        monkeypatch.setenv("no_proxy", "server.example")
        client = HttpClient("http://server.example/repo")
        peers.scripts = [answer()]
        assert client.get("a", 10, soon()) == b"block"
        assert peers.addresses == [("server.example", 80)]
        client.close()

    def test_a_tunnel_that_is_refused_is_an_error(self, peers, monkeypatch):
        monkeypatch.setenv("https_proxy", "proxy.example:3128")
        peers.scripts = [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"]
        with pytest.raises(UnreachableError, match=r"cannot reach server\.example.*407"):
            HttpClient("https://server.example").get("a", 10, soon())
        assert peers.received().startswith(b"CONNECT server.example:443 HTTP/1.")
        assert peers.addresses == [("proxy.example", 3128)]

    def test_a_tunnel_that_drips_is_bounded_by_the_deadline(self, peers, monkeypatch):
        monkeypatch.setenv("https_proxy", "proxy.example:3128")
        peers.scripts = [b"HTTP/1.1 200 "]
        peers.serve = drip
        with pytest.raises(DeadlineExceededError):
            HttpClient("https://server.example").get("a", 10, Deadline.after(0.1))

    def test_a_kind_of_proxy_that_is_not_spoken_is_said(self, monkeypatch):
        monkeypatch.setenv("http_proxy", "socks5://proxy.example:1080")
        with pytest.raises(OscircError, match="not one that this program can use"):
            HttpClient("http://server.example").get("a", 10, soon())
