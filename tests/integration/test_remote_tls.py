"""The same over TLS: certificates are checked, connections are kept, and a server that hangs up is asked again."""

import contextlib
import socket
import ssl
import threading

import pytest
from support import fault_server
from support.certificates import certificate
from support.fault_server import FaultServer

from oscirc_blockstore.errors import DeadlineExceededError, TransportError, UnreachableError
from oscirc_publisher.rest import Patience, RestClient
from oscirc_remote import http_client
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_client import HttpClient


@pytest.fixture
def trust(monkeypatch):
    """Sets what this process trusts, and forgets it afterwards."""

    def set_(path):
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        http_client._tls_context.cache_clear()

    yield set_
    http_client._tls_context.cache_clear()


@pytest.fixture
def serve():
    servers = []

    def serve_(path):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        servers.append(FaultServer({"a": b"block" * 50_000, "b": b"other"}, tls=context))
        return servers[-1]

    yield serve_
    for server in servers:
        server.close()


@pytest.fixture
def clients():
    clients = []

    def client(url):
        clients.append(HttpClient(url))
        return clients[-1]

    yield client
    for client_ in clients:
        client_.close()


def test_a_trusted_server_is_read_over_one_connection(tmp_path, trust, serve, clients):
    path = certificate(tmp_path)
    trust(path)
    server = serve(path)
    client = clients(server.url)
    for _ in range(3):
        assert client.get("a", 1 << 20, Deadline.after(10)) == b"block" * 50_000
        assert client.get("b", 10, Deadline.after(10)) == b"other"
    assert len(server._server.open_sockets) == 1


@pytest.mark.parametrize("why", ["unknown", "expired"])
def test_a_certificate_that_is_not_valid_is_refused_at_once(tmp_path, trust, serve, clients, why):
    path = certificate(tmp_path, valid_days=-1 if why == "expired" else 2)
    if why == "expired":
        trust(path)
    with pytest.raises(TransportError, match=r"certificate of 127\.0\.0\.1") as refusal:
        clients(serve(path).url).get("b", 10, Deadline.after(10))
    assert not refusal.value.retryable
    assert "clock" in refusal.value.hint


def test_a_connection_that_was_cut_while_it_was_kept_is_replaced(tmp_path, trust, serve, clients):
    path = certificate(tmp_path)
    trust(path)
    server = serve(path)
    client = clients(server.url)
    client.get("b", 10, Deadline.after(10))
    server.close()
    server.start()
    assert client.get("b", 10, Deadline.after(10)) == b"other"


def test_bounds_hold_over_tls_too(tmp_path, trust, serve, clients):
    path = certificate(tmp_path)
    trust(path)
    server = serve(path)
    client = clients(server.url)
    server.inject("a", fault_server.truncate(1000))
    with pytest.raises(UnreachableError, match=r"broke off.*1000 bytes"):
        client.get("a", 1 << 20, Deadline.after(10))
    server.inject("a", fault_server.stall(1000))
    with pytest.raises(DeadlineExceededError):
        client.get("a", 1 << 20, Deadline.after(10), stall_s=0.05)
    server.heal()


def test_a_server_without_tls_is_said_to_be_one(serve, clients):
    with FaultServer({}) as server, pytest.raises(TransportError, match="cannot reach"):
        clients(server.url.replace("http:", "https:")).get("b", 10, Deadline.after(10))


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/repo/b", "HTTP://127.0.0.1:1/", "file:///etc/passwd"])
def test_redirects_never_leave_tls(tmp_path, trust, serve, clients, location):
    path = certificate(tmp_path)
    trust(path)
    server = serve(path)
    server.inject("a", fault_server.redirect(location))
    with pytest.raises(TransportError, match="without TLS"):
        clients(server.url).get("a", 10, Deadline.after(10))
    assert server.count() == 1


def test_redirects_may_lead_to_tls(tmp_path, trust, serve, clients):
    path = certificate(tmp_path)
    trust(path)
    with FaultServer({}) as plain:
        plain.inject("b", fault_server.redirect(f"{serve(path).url}/b"))
        assert clients(plain.url).get("b", 10, Deadline.after(10)) == b"other"


def test_a_tunnel_through_a_proxy_keeps_tls_and_its_bounds(tmp_path, trust, serve, clients, monkeypatch):
    path = certificate(tmp_path)
    trust(path)
    server = serve(path)
    asked = []

    def relay(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def tunnel(listener):
        near, _ = listener.accept()
        asked.append(near.recv(4096))
        far = socket.create_connection(server._server.server_address)
        with near, far:
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=relay, args=(far, near))
            back.start()
            relay(near, far)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        thread = threading.Thread(target=tunnel, args=(listener,))
        thread.start()
        client = clients(server.url)
        assert client.get("b", 10, Deadline.after(10)) == b"other"
        assert client.get("a", 1 << 20, Deadline.after(10)) == b"block" * 50_000
        server.inject("a", fault_server.stall(1000))
        with pytest.raises(DeadlineExceededError):
            client.get("a", 1 << 20, Deadline.after(10), stall_s=0.05)
        server.heal()
        client.close()
        thread.join(10)
    assert len(asked) == 1
    assert asked[0].startswith(f"CONNECT 127.0.0.1:{server._server.server_address[1]} HTTP/1.".encode())


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_the_publishers_client_checks_certificates_however_the_address_is_written(tmp_path, monkeypatch, serve, scheme):
    path = certificate(tmp_path)
    url = serve(path).url.replace("https", scheme, 1)
    with RestClient(url, patience=Patience(())) as client, pytest.raises(UnreachableError, match="CERTIFICATE"):
        client.fetch("a", 1 << 20)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with RestClient("http://127.0.0.1:9/r", api_url=url, patience=Patience(())) as client:
        assert client.call("GET", "b") == b"other"
    with RestClient(url, patience=Patience(())) as client:
        assert client.fetch("b", 100) == b"other"
