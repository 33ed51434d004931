import threading
import time

import httpx
import pytest

from oscirc_blockstore.errors import (
    DeadlineExceededError,
    DocumentRefusedError,
    NotServedError,
    OversizedResponseError,
    ServerRefusedError,
    UnreachableError,
    UsageError,
)
from oscirc_publisher.rest import Body, Patience, RestClient, StoppedError

URL = "http://repository.test/r"


def client(handler, pauses_s=(), **options):
    def streamed(request):
        answer = handler(request)
        if isinstance(answer.stream, httpx.ByteStream):
            answer = httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))
        return answer

    return RestClient(URL, patience=Patience(tuple(pauses_s)), transport=httpx.MockTransport(streamed), **options)


class Answers:
    """Gives these answers in turn, raising those that are errors; keeps what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.bodies = []

    def __call__(self, request):
        self.requests.append(request)
        self.bodies.append(request.read())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_token_goes_to_the_api_and_nowhere_else():
    server = Answers(httpx.Response(200, content=b"x"), httpx.Response(200, content=b"y"))
    with client(server, token="secret") as connection:
        connection.fetch("metadata/1.alice.json", 10)
        connection.call("POST", "drafts", Body.of(b"abc"))
    static, api = server.requests
    assert str(static.url) == f"{URL}/metadata/1.alice.json"
    assert "Authorization" not in static.headers
    assert str(api.url) == f"{URL}/api/v1/drafts"
    assert api.headers["Authorization"] == "Bearer secret"
    assert static.headers["Accept-Encoding"] == api.headers["Accept-Encoding"] == "identity"
    assert api.headers["Content-Length"] == "3"
    assert "Transfer-Encoding" not in api.headers


def test_the_api_may_stand_elsewhere():
    server = Answers(httpx.Response(200, content=b"{}"))
    with client(server, api_url="https://api.test/v1/") as connection:
        connection.call_json("GET", "publishers/alice")
    assert str(server.requests[0].url) == "https://api.test/v1/publishers/alice"


@pytest.mark.parametrize("url", ["ftp://x/", "http://user:secret@x/", "http://", "nonsense", "http://x/?q=1"])
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(UsageError):
        RestClient(url)


@pytest.mark.parametrize(
    "passing",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
        httpx.ReadTimeout("slow"),
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(429),
    ],
)
def test_what_may_pass_is_tried_again_with_the_same_body(passing):
    server = Answers(passing, passing, httpx.Response(200, content=b"done"))
    body = Body(6, lambda: iter((b"abc", b"def")))
    with client(server, pauses_s=(0, 0)) as connection:
        assert connection.call("POST", "x", body) == b"done"
    assert server.bodies == [b"abcdef"] * 3


@pytest.mark.parametrize(
    ("failing", "kind"),
    [
        (httpx.ConnectError("refused"), UnreachableError),
        (httpx.ReadTimeout("slow"), DeadlineExceededError),
        (httpx.Response(503), ServerRefusedError),
    ],
)
def test_the_budget_ends(failing, kind):
    server = Answers(*[failing] * 3)
    with client(server, pauses_s=(0, 0)) as connection, pytest.raises(kind):
        connection.call("GET", "x")
    assert server.answers == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 507])
def test_what_would_only_come_again_is_not_tried_again(status):
    server = Answers(httpx.Response(status))
    with client(server, pauses_s=(0, 0)) as connection, pytest.raises(Exception, match="refuses"):
        connection.call("GET", "x")


def test_once_leaves_trying_again_to_the_caller():
    server = Answers(httpx.Response(503))
    with client(server, pauses_s=(0, 0)) as connection, pytest.raises(ServerRefusedError):
        connection.call("GET", "x", once=True)


def test_pauses_grow_and_a_server_may_ask_for_longer_ones_within_bounds(monkeypatch):
    waited = []
    server = Answers(
        httpx.Response(503),
        httpx.Response(503, headers={"Retry-After": "7"}),
        httpx.Response(503, headers={"Retry-After": "86400"}),
        httpx.Response(503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        httpx.Response(200),
    )
    with client(server, pauses_s=(1, 2, 4, 8)) as connection:
        monkeypatch.setattr(connection.stop, "wait", lambda pause: waited.append(pause) and False)
        connection.call("GET", "x")
    assert 0.75 <= waited[0] <= 1
    assert waited[1] == 7
    assert waited[2] == 30
    assert 6 <= waited[3] <= 8


def test_stop_ends_a_pause():
    with client(Answers(httpx.Response(503)), pauses_s=(60,)) as connection:
        threading.Timer(0.05, connection.stop.set).start()
        started = time.monotonic()
        with pytest.raises(StoppedError):
            connection.call("GET", "x")
        assert time.monotonic() - started < 30


def test_stop_ends_an_upload_between_two_pieces():
    sent = []
    with client(Answers(httpx.Response(200))) as connection:

        def pieces():
            for number in range(100):
                if number == 3:
                    connection.stop.set()
                sent.append(number)
                yield b"x"

        with pytest.raises(StoppedError):
            connection.call("POST", "x", Body(100, pieces))
    assert sent == [0, 1, 2, 3]


def test_an_answer_that_is_too_long_is_refused_while_it_comes():
    produced = []

    def endless():
        for number in range(1 << 20):
            produced.append(number)
            yield bytes(1024)

    with client(lambda request: httpx.Response(200, content=endless())) as connection:
        with pytest.raises(OversizedResponseError):
            connection.call("GET", "x", max_bytes=10_000)
        with pytest.raises(OversizedResponseError):
            connection.fetch("x", 10_000)
    assert len(produced) < 30


def test_an_answer_that_drips_is_given_up():
    def drip():
        while True:
            yield b"x"

    dripping = client(lambda request: httpx.Response(200, content=drip()))
    with dripping as connection, pytest.raises(DeadlineExceededError):
        connection.call("GET", "x", timeout_s=0.0)


def test_every_wait_of_a_request_is_bounded():
    server = Answers(httpx.Response(200), httpx.Response(200))
    with client(server) as connection:
        connection.call("GET", "x")
        connection.call("POST", "x", timeout_s=900)
    first, second = (request.extensions["timeout"] for request in server.requests)
    assert all(0 < bound <= 120 for bound in first.values())
    assert second["read"] == 900


def test_a_compressed_answer_is_not_unpacked():
    bomb = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=iter([b"x"]))
    with client(lambda request: bomb) as connection, pytest.raises(OversizedResponseError, match="compressed"):
        connection.call("GET", "x")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
def test_redirects_are_not_followed(status):
    server = Answers(httpx.Response(status, headers={"Location": "http://elsewhere.test/"}))
    with client(server, token="secret") as connection, pytest.raises(ServerRefusedError, match=str(status)):
        connection.call("GET", "x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("raw", [b"", b"[]", b"nonsense", b"[" * 100_000, b'"x"'])
def test_an_answer_that_is_no_json_object_is_refused(raw):
    with client(Answers(httpx.Response(200, content=raw))) as connection, pytest.raises(DocumentRefusedError):
        connection.call_json("GET", "x")


def test_a_static_file_that_is_not_there():
    server = Answers(httpx.Response(404, json={"type": "TrustError"}))
    with client(server) as connection, pytest.raises(NotServedError, match="absent"):
        connection.fetch("absent", 10)
