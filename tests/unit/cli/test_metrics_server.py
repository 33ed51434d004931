import contextlib
import http.client
import socket
import threading

import pytest
from prometheus_client.core import GaugeMetricFamily

from oscirc import metrics_server
from oscirc.metrics_server import MetricsServer
from oscirc_blockstore.errors import LocalError


class Counting:
    def __init__(self):
        self.asked = 0

    def collect(self):
        self.asked += 1
        family = GaugeMetricFamily("asked", "How often.")
        family.add_metric((), self.asked)
        return [family]


@pytest.fixture
def server():
    collector = Counting()
    with MetricsServer(("127.0.0.1", 0), collector) as server:
        server.collector = collector
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)


def get(server, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, "/metrics")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_the_page_is_made_anew_for_every_request(server):
    assert server.collector.asked == 0
    assert "asked 1.0" in get(server)[1]
    assert "asked 2.0" in get(server)[1]


def test_nothing_but_the_page_is_served(server):
    assert get(server, "POST")[0] == 405
    assert server.collector.asked == 0


def test_more_connections_than_there_are_places_are_closed_at_once(server, monkeypatch):
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.server_port)
        connections = (socket.create_connection(address, 20) for _ in range(metrics_server.CONNECTIONS + 1))
        silent = [stack.enter_context(connection) for connection in connections]
        assert silent[-1].recv(1) == b""
    assert get_when_there_is_a_place(server)[0] == 200


def get_when_there_is_a_place(server):
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return get(server)


def test_a_client_that_drips_is_hung_up_on(server, monkeypatch):
    monkeypatch.setattr(metrics_server, "CONNECTION_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.server_port), 20) as slow:
        slow.sendall(b"GET / HTTP/1.0\r\nX: ")
        assert slow.recv(1) == b""


def test_a_port_that_is_taken_is_a_local_error(server):
    with pytest.raises(LocalError, match="cannot listen"):
        MetricsServer(("127.0.0.1", server.server_port), Counting())


def test_a_machine_without_threads_costs_no_place(server, monkeypatch):
    def none_left(*_arguments):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(metrics_server.ThreadingMixIn, "process_request", none_left)
        for _ in range(2 * metrics_server.CONNECTIONS):
            with pytest.raises((http.client.HTTPException, OSError)):
                get(server)
    assert "asked" in get(server)[1]
