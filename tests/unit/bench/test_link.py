"""The link emulator: rate, delay and fairness under a clock that the test moves; a real link only for what it counts."""

import http.server
import threading
import urllib.request

import pytest
from link import Direction, Link, check, chunk_bytes, queue_bytes

RATE_BITS = 8_000_000
"""One byte a microsecond."""


def passed(direction: Direction, *, step_s: float = 0.001, until_s: float = 100.0):
    """(arrival, key, bytes) of everything that is on the way, the clock moving in steps."""
    found, now = [], 0.0
    while direction.next_event() < float("inf") and now < until_s:
        direction.serve(now)
        found += [(now, key, raw) for key, raw in direction.arrived(now)]
        now += step_s
    return found


def test_bytes_take_size_over_rate_plus_the_delay():
    direction = Direction(RATE_BITS, 0.050)
    for _ in range(200):
        direction.put(1, bytes(1000), 0.0)
    arrivals = passed(direction)
    assert sum(len(raw) for _, _, raw in arrivals) == direction.passed_bytes == 200_000
    assert arrivals[0][0] == pytest.approx(0.051, abs=0.002)
    assert arrivals[-1][0] == pytest.approx(0.250, abs=0.002)


def test_a_late_wake_up_loses_no_rate():
    direction = Direction(RATE_BITS, 0.0)
    for _ in range(100):
        direction.put(1, bytes(10_000), 0.0)
    assert passed(direction, step_s=0.007)[-1][0] == pytest.approx(1.0, abs=0.008)


def test_an_idle_link_saves_up_no_rate():
    direction = Direction(RATE_BITS, 0.0)
    direction.put(1, bytes(1000), 5.0)
    direction.serve(5.0)
    assert direction.free_at == pytest.approx(5.001)


def test_bytes_do_not_pass_before_they_are_ready():
    direction = Direction(RATE_BITS, 0.0)
    direction.put(1, b"early", 3.0)
    direction.serve(2.9)
    assert direction.passed_bytes == 0
    assert direction.next_event() == pytest.approx(3.0)


def test_a_small_answer_does_not_stand_behind_a_bulk_transfer():
    direction = Direction(RATE_BITS, 0.0)
    for _ in range(100):
        direction.put(1, bytes(10_000), 0.0)
    direction.put(2, bytes(100), 0.0)
    arrivals = passed(direction)
    assert next(at for at, key, _ in arrivals if key == 2) < 0.03
    assert arrivals[-1][0] == pytest.approx(1.0, abs=0.01)


def test_each_connection_keeps_its_order():
    direction = Direction(RATE_BITS, 0.02)
    for number in range(50):
        for key in (1, 2, 3):
            direction.put(key, bytes([number]) * 500, 0.0)
    arrivals = passed(direction)
    for key in (1, 2, 3):
        assert [raw[0] for _, of, raw in arrivals if of == key] == list(range(50))


def test_a_connection_that_is_gone_leaves_nothing_behind():
    direction = Direction(RATE_BITS, 0.02)
    direction.put(1, bytes(5000), 0.0)
    direction.put(1, bytes(5000), 0.0)
    direction.serve(0.0)
    direction.forget(1)
    assert direction.next_event() == float("inf")
    assert direction.idle(1)


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_link_without_a_rate_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        Link(80, rate_bits=rate, round_trip_s=0.02)


@pytest.mark.parametrize("round_trip", [-0.001, 20, float("nan")])
def test_a_round_trip_that_cannot_be_is_refused(round_trip):
    with pytest.raises(ValueError, match="round trip"):
        check(1e6, round_trip)


def test_chunks_and_queues_are_bounded_on_slow_and_fast_links():
    assert chunk_bytes(1e3) == 4 << 10
    assert chunk_bytes(1e12) == 64 << 10
    assert queue_bytes(1e3) == 32 << 10
    assert queue_bytes(1e9) == 1_250_000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers 100,000 bytes to everything, over connections that stay open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"x" * 100_000)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server_port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.read()


def test_a_running_link_carries_bytes_unchanged_and_counts_them(server_port):
    with Link(server_port, rate_bits=1e9, round_trip_s=0.001) as link:
        assert get(link.port) == b"x" * 100_000
        counters = link.tell()
        assert (counters.requests, counters.connections) == (1, 1)
        assert 100_000 < counters.bytes_down < 101_000
        assert counters.first_bundle_s is None
        assert link.tell("reset").bytes_down == 0
        get(link.port, "/repo/accel/" + "ab" * 32)
        assert link.tell().first_bundle_s is not None


def test_a_killed_link_drops_what_is_open_and_serves_who_comes_next(server_port):
    with Link(server_port, rate_bits=1e9, round_trip_s=0.001) as link:
        get(link.port)
        assert link.tell("kill").open == 0
        assert len(get(link.port)) == 100_000


def test_a_rate_that_is_changed_holds_from_then_on(server_port):
    with Link(server_port, rate_bits=1000, round_trip_s=0.001) as link:  # 100,000 bytes would take 13 minutes
        link.tell("rate 1e9")
        assert len(get(link.port)) == 100_000
