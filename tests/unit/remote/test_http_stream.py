"""Parts of a file as a stream, over a server on loopback that does what hostile ones do."""

import threading
import time

import pytest
from support.fault_server import (
    FaultServer,
    drip,
    no_length,
    over_long,
    redirect,
    reset,
    shorten,
    stall,
    status,
    truncate,
)

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    NotServedError,
    OscircError,
    ServerRefusedError,
    TransportError,
    UnreachableError,
)
from oscirc_remote.deadlines import Cancellation, Deadline
from oscirc_remote.http_client import HttpClient
from oscirc_remote.rate_limits import RateLimit

RAW = bytes(range(251)) * 4000


@pytest.fixture
def server():
    with FaultServer({"file": RAW, "other": RAW}) as server:
        yield server


@pytest.fixture
def client(server):
    client = HttpClient(server.url)
    yield client
    client.close()


LENGTH = len(RAW)


def stream(client, start=0, stop=LENGTH, *, path="file", deadline=None, size=65536, **options):
    pieces = []
    with client.stream(path, start, stop, deadline or Deadline.after(20), **options) as body:
        while piece := body.read(size):
            assert len(piece) <= size
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(("start", "stop"), [(0, len(RAW)), (0, 1), (1, 2), (1000, 900_000), (len(RAW) - 1, len(RAW))])
def test_exactly_the_part_that_is_asked_for_comes(server, client, start, stop):
    assert stream(client, start, stop) == RAW[start:stop]
    assert server.requests[0].headers["range"] == f"bytes={start}-{stop - 1}"


def test_the_whole_file_is_asked_for_without_a_range(server, client):
    assert stream(client, whole=True) == RAW
    assert "range" not in server.requests[0].headers


def test_a_connection_that_was_read_to_the_end_is_used_again(server, client):
    for _ in range(3):
        assert stream(client, 10, 5000) == RAW[10:5000]
    assert len({request.port for request in server.requests}) == 1


def test_a_stream_that_is_left_is_not_used_again(server, client):
    with client.stream("file", 0, len(RAW), Deadline.after(20)) as body:
        body.read(10)
    assert stream(client, 0, 100) == RAW[:100]
    assert len({request.port for request in server.requests}) == 2


def test_a_body_without_a_length_is_read_to_its_end(server, client):
    server.inject("file", no_length())
    assert stream(client) == RAW


def test_a_redirect_is_followed_with_the_range(server, client):
    server.inject("file", redirect(f"{server.url}/other"))
    assert stream(client, 100, 200) == RAW[100:200]


def test_a_part_with_the_status_of_a_whole_is_taken_by_what_it_says_it_is(server, client):
    server.inject("file", lambda answer: setattr(answer, "status", 200))  # as rclone's S3 server answers
    assert stream(client, 100, 200) == RAW[100:200]


def whole_anyway(answer):
    answer.status, answer.body, answer.declared = 200, RAW, len(RAW)
    answer.headers.pop("Content-Range", None)


def another_range(answer):
    answer.headers["Content-Range"] = f"bytes 0-99/{len(RAW)}"


def without_range(answer):
    answer.headers.pop("Content-Range", None)


def another_range_as_a_whole(answer):
    another_range(answer)
    answer.status = 200


@pytest.mark.parametrize("fault", [whole_anyway, another_range, without_range, another_range_as_a_whole])
def test_a_server_that_answers_with_another_part_is_refused(server, client, fault):
    server.inject("file", fault)
    with pytest.raises(ServerRefusedError, match="ranges"):
        stream(client, 100, 200)


def test_a_compressed_body_is_refused_unasked(server, client):
    server.inject("file", lambda answer: answer.headers.update({"Content-Encoding": "gzip"}))
    with pytest.raises(ServerRefusedError, match="gzip"):
        stream(client)


@pytest.mark.parametrize(
    ("fault", "kind", "stall_s"),
    [
        (status(404), NotServedError, 20),
        (status(416), ServerRefusedError, 20),
        (status(503), ServerRefusedError, 20),
        (reset(), UnreachableError, 20),
        (truncate(1000), UnreachableError, 20),
        (stall(), DeadlineExceededError, 0.3),
        (stall(1000), DeadlineExceededError, 0.3),
    ],
    ids=["404", "416", "503", "reset", "truncated", "silent", "falls silent"],
)
def test_every_failure_is_one_of_this_project(server, client, fault, kind, stall_s):
    server.inject("file", fault)
    with pytest.raises(kind):
        stream(client, stall_s=stall_s)


def test_a_file_that_is_shorter_than_asked_for_ends_early_and_the_reader_sees_it(server, client):
    server.inject("file", shorten(1000))
    with client.stream("file", 0, len(RAW), Deadline.after(20)) as body:
        came = 0
        while piece := body.read(1 << 20):
            came += len(piece)
    assert came == len(RAW) - 1000


def test_a_body_without_end_is_cut_off_soon_after_what_was_asked_for(server, client):
    server.inject("file", over_long(None))
    came = 0

    def read_on():
        nonlocal came
        with client.stream("file", 0, 100_000, Deadline.after(20)) as body:
            while piece := body.read(65536):
                came += len(piece)

    with pytest.raises(TransportError):
        read_on()
    assert came < 400_000


def test_a_server_that_drips_is_bounded_by_the_deadline(server, client):
    server.inject("file", drip(0.01, 10))
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        stream(client, deadline=Deadline.after(0.3))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_what_is_under_way_ends_at_once_when_it_is_called_off(server, client, end):
    server.inject("file", stall(1000))
    cancellation = Cancellation()
    problems = []

    def read():
        try:
            stream(client, deadline=Deadline.after(60, cancellation), stall_s=60.0)
        except OscircError as error:
            problems.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    server.wait_until_asked("file")
    cancellation.cancel("not wanted any more") if end == "cancelled" else client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(problems[0], TransportError)


def test_what_came_is_counted_and_paid_for(server):
    spent = []

    class Limit(RateLimit):
        def spend(self, size_bytes, deadline):
            spent.append(size_bytes)

    client = HttpClient(server.url, rate_limit=Limit(1.0))
    stream(client, 0, 100_000)
    assert sum(spent) == 100_000
    assert 100_000 < client.counters["received_bytes"] < 101_000
    assert client.counters["requests"] == 1
    client.close()
