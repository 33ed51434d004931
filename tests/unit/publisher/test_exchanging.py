"""A pipeline's JWT is sent once, and what comes back must be a token."""

import json

import httpx
import pytest

from oscirc_blockstore import token_text
from oscirc_blockstore.errors import DocumentRefusedError, NameRefusedError, ServerRefusedError, UsageError
from oscirc_publisher.exchanging import exchange
from oscirc_publisher.rest import RestClient

TOKEN = token_text.from_secret(bytes(32))


def ask(status, answer, jwt="a.b.c", publisher="debian"):
    seen = []

    def serve(request):
        seen.append(request)
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(answer).encode()))

    with RestClient("http://repository.test", transport=httpx.MockTransport(serve)) as rest:
        try:
            return exchange(rest, publisher, jwt)
        finally:
            for request in seen:
                assert request.url.path == "/api/v1/tokens/oidc"
                assert json.loads(request.content) == {"publisher": publisher, "jwt": jwt}
                assert "authorization" not in request.headers
            assert len(seen) <= 1


def test_the_token_is_given():
    assert ask(201, {"token": TOKEN, "scopes": ["publish:debian"]}) == TOKEN


@pytest.mark.parametrize("answer", [{}, {"token": 7}, {"token": TOKEN[:-1]}, {"token": "x"}])
def test_an_answer_without_a_whole_token_is_refused(answer):
    with pytest.raises(DocumentRefusedError):
        ask(201, answer)


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_is_told_and_nothing_is_sent_again(status):
    with pytest.raises(ServerRefusedError, match="because"):
        ask(status, {"type": "X", "detail": "because"})


@pytest.mark.parametrize("jwt", ["", "x" * 17_000, "ä", "a\nb"])
def test_what_is_no_jwt_is_not_sent(jwt):
    with pytest.raises(UsageError):
        ask(201, {}, jwt)


def test_a_publisher_that_cannot_be_is_not_asked_about():
    with pytest.raises(NameRefusedError):
        ask(201, {}, publisher="?lice")
