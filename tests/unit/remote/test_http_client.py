"""The parser and the bounds, over socket pairs: a scripted peer on the other end, no network."""

import os
import socket
import threading

import pytest
from oscirc_remote.connections import Connection, Origin, connect

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    NotServedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote import connections, http_client
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_client import HttpClient


def soon():
    return Deadline.after(20)


class Peers:
    """What `connect` leads to: each new connection gets the next scripted answer, then the other end stays open."""

    def __init__(self):
        self.scripts = []
        self.ends = []
        self.origins = []

    def connect(self, origin, deadline, connect_s):
        self.origins.append(origin)
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.ends.append(theirs)
        script = self.scripts.pop(0)
        theirs.sendall(script.removesuffix(b"<EOF>"))
        if script.endswith(b"<EOF>"):
            theirs.shutdown(socket.SHUT_WR)
        return Connection(ours, origin)

    def received(self, number=0):
        return self.ends[number].recv(65536)


@pytest.fixture
def peers(monkeypatch):
    peers = Peers()
    monkeypatch.setattr(http_client, "connect", peers.connect)
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
        b"GET /repo/a HTTP/1.1\r\nHost: mirror.example\r\nUser-Agent: oscirc\r\n"
        b"Accept: */*\r\nAccept-Encoding: identity\r\n\r\n"
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
    assert peers.received().startswith(b"GET /repo/a?bad=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nblo\r\n2;x=y\r\nck\r\n0\r\nX: y\r\n\r\n",
            b"block",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nblock<EOF>", b"block"),
        (b"HTTP/1.0 200\r\nContent-Length: 5\r\n\r\nblock", b"block"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(), b"block"),
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
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nblocks\r\n6\r\n", OversizedResponseError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nblockX<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nblockXXX\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransportError),
        (answer(length=8) + b"<EOF>", UnreachableError),
        (b"<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Le<EOF>", UnreachableError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nblock", TransportError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nblock", TransportError),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n", TransportError),
        (b"HTTP/2 200\r\n\r\n", TransportError),
        (b"SSH-2.0-OpenSSH\r\n", TransportError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", TransportError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 101, TransportError),
        (b"x" * 20_000, UnreachableError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, UnreachableError),
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
    with pytest.raises(NotServedError):
        client.get("a", 10, soon())
    assert client._idle


def test_an_endless_answer_is_cut_at_what_was_allowed(peers, client):
    peers.scripts = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 8000 + b"\r\ny\r\n"]

    def flood():
        try:
            peers.received()
            while True:
                peers.ends[0].sendall(b"1;" + b"x" * 8000 + b"\r\ny\r\n")
        except OSError:
            pass

    thread = threading.Thread(target=flood)
    started = threading.Event()
    original = peers.connect

    def connect_and_flood(*arguments):
        connection = original(*arguments)
        thread.start()
        started.set()
        return connection

    http_client.connect = connect_and_flood  # the fixture restores it
    with pytest.raises(TransportError):
        client.get("a", 1 << 20, soon())
    thread.join(20)
    assert client.counters["received_bytes"] < (1 << 20) + (1 << 18)


@pytest.mark.parametrize("script", [b"", b"HTTP/1.1 200 OK\r\n", answer(length=8)])
def test_silence_is_bounded(peers, client, script):
    peers.scripts = [script]
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10, soon(), stall_s=0.01)


def test_a_dripping_answer_is_bounded_by_the_deadline(peers, client):
    peers.scripts = [b""]
    stop = threading.Event()

    def drip():
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 8000:
            if stop.wait(0.01):
                return
            peers.ends[0].sendall(bytes([byte]))

    original = peers.connect
    thread = threading.Thread(target=drip)

    def connect_and_drip(*arguments):
        connection = original(*arguments)
        thread.start()
        return connection

    http_client.connect = connect_and_drip  # the fixture restores it
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10, Deadline.after(0.1), stall_s=5)
    stop.set()
    thread.join()


def test_a_deadline_that_has_passed_sends_nothing(peers, client):
    peers.scripts = [answer()]
    with pytest.raises(DeadlineExceededError):
        client.get("a", 10, Deadline.after(-1))


def test_redirects_are_followed_also_to_other_hosts(peers, client):
    def moved(location, status):
        return answer(b"", head=b"Connection: close\r\nLocation: " + location + b"\r\n", status=status)

    peers.scripts = [
        moved(b"/elsewhere?x=1", b"302 Found"),
        moved(b"https://cdn.example/b", b"308 Permanent Redirect"),
        answer(b"moved"),
    ]
    assert client.get("a", 10, soon()) == b"moved"
    assert peers.origins == [Origin("http", "mirror.example", 80)] * 2 + [Origin("https", "cdn.example", 443)]
    assert peers.received(1).startswith(b"GET /elsewhere?x=1 HTTP/1.1\r\nHost: mirror.example\r\n")


@pytest.mark.parametrize(
    "location", [b"file:///etc/passwd", b"http://plain.example/a", b"ftp://x/y", b"https://[broken/", b"https://a b/"]
)
def test_redirects_never_leave_tls_nor_http(peers, location):
    client = HttpClient("https://mirror.example/repo")
    peers.scripts = [answer(b"", head=b"Location: " + location + b"\r\n", status=b"302 Found")]
    with pytest.raises(TransportError):
        client.get("a", 10, soon())
    client.close()
    assert len(peers.ends) == 1


def test_a_loop_of_redirects_ends(peers, client):
    loop = answer(b"", head=b"Location: http://other.example/\r\nConnection: close\r\n", status=b"302 Found")
    peers.scripts = [loop] * 10
    with pytest.raises(TransportError, match="redirects more than"):
        client.get("a", 10, soon())


@pytest.mark.parametrize("path", ["a b", "a\r\nX: y", "ä"])
def test_an_address_that_would_break_the_request_is_refused(peers, client, path):
    peers.scripts = [answer()]
    with pytest.raises(TransportError):
        client.get(path, 10, soon())
    assert peers.ends == []


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
    while not client.counters["requests"]:
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


class TestProxies:
    """Proxies of the environment, by a scripted one on loopback's sockets."""

    @pytest.fixture
    def proxy(self, monkeypatch):
        ours, theirs = socket.socketpair()
        reached = []

        def reach(host, port, deadline, connect_s):
            reached.append((host, port))
            return ours

        monkeypatch.setattr(connections, "_reach", reach)
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        yield theirs, reached
        ours.close()
        theirs.close()

    def test_without_one_the_server_itself_is_reached(self, proxy):
        connection = connect(Origin("http", "server.example", 8080), soon(), 1)
        assert proxy[1] == [("server.example", 8080)]
        assert connection.target_prefix == ""
        connection.close()

    def test_plain_requests_name_the_whole_address(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://user:p%40ss@proxy.example:3128")
        theirs, reached = proxy
        client = HttpClient("http://server.example/repo")
        theirs.sendall(answer())
        assert client.get("a", 10, soon()) == b"block"
        assert reached == [("proxy.example", 3128)]
        request = theirs.recv(4096)
        assert request.startswith(b"GET http://server.example/repo/a HTTP/1.1\r\nHost: server.example\r\n")
        assert b"\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in request
        client.close()

    def test_no_proxy_is_obeyed(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
        monkeypatch.setenv("no_proxy", "server.example")
        connect(Origin("http", "server.example", 80), soon(), 1).close()
        assert proxy[1] == [("server.example", 80)]

    def test_a_tunnel_that_is_refused_is_an_error(self, proxy, monkeypatch):
        monkeypatch.setenv("https_proxy", "proxy.example:3128")
        theirs, reached = proxy
        theirs.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        with pytest.raises(TransportError, match=r"refuses to connect to server\.example:443"):
            connect(Origin("https", "server.example", 443), soon(), 1)
        assert theirs.recv(4096).startswith(b"CONNECT server.example:443 HTTP/1.1\r\n")
        assert reached == [("proxy.example", 3128)]

    def test_a_kind_of_proxy_that_is_not_spoken_is_said(self, proxy, monkeypatch):
        monkeypatch.setenv("http_proxy", "socks5://proxy.example:1080")
        with pytest.raises(OscircError, match="not one that this program can use"):
            connect(Origin("http", "server.example", 80), soon(), 1)
