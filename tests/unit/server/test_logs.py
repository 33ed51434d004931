"""Lines of the log: one form for all, the request's id, and nothing in them that opens a door."""

import json
import logging

import pytest

from oscirc_server import logs, request_ids

TOKEN = "oscirc_" + "A" * 43


def record(message, /, **extra):
    made = logging.LogRecord("oscirc_server.x", logging.WARNING, "file", 1, message, (), None)
    vars(made).update(extra)
    return made


def test_a_line_is_pairs_and_quotes_what_is_not_plain():
    line = logs.LineFormatter().format(record("disk is full", place="/srv", reason='no "room"\nat all', count=3))
    assert line.startswith("time=20")
    assert line.endswith('level=warning event="disk is full" place=/srv reason="no \\"room\\"\\nat all" count=3')


def test_json_is_one_object_a_line_and_keeps_numbers():
    line = logs.JsonFormatter().format(
        record("request\n", status=200, seconds=0.5, path="/ü\n", quiet=True, token=None)
    )
    assert "\n" not in line
    assert line.isascii()
    facts = json.loads(line)
    assert facts.pop("time").endswith("Z")
    assert facts == {
        "level": "warning",
        "logger": "oscirc_server.x",
        "event": "request\n",
        "status": 200,
        "seconds": 0.5,
        "path": "/ü\n",
        "quiet": True,
        "token": None,
    }


@pytest.mark.parametrize("form", [logs.LineFormatter(), logs.JsonFormatter()])
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token {TOKEN} was refused", TOKEN),
        ("connect to postgresql+psycopg://oscirc:hunter2hunter2@db/oscirc failed", "hunter2hunter2"),
        ("sent Authorization: Bearer abcdefgh.ijkl-mnop", "abcdefgh"),
        ("password=correcthorse in dsn", "correcthorse"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+ghi", "abc/def"),
        ("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----", "MC4CAQ"),
    ],
)
def test_what_looks_like_a_secret_is_blanked_out_wherever_it_stands(form, text, secret):
    failure = record("failed")
    failure.exc_info = (ValueError, ValueError(text), None)
    for line in (form.format(record(text)), form.format(record("failed", error=text)), form.format(failure)):
        assert secret not in line
        assert logs.BLANK in line


def test_what_is_no_secret_stays():
    text = "oscirc_server listens on http://127.0.0.1:8420/path:x@y, alice@example.org"
    assert logs.without_secrets(text) == text


def test_a_line_logged_during_a_request_has_its_id():
    request_ids.enter("abcdef0123456789")
    try:
        assert "request_id=abcdef0123456789" in logs.LineFormatter().format(record("x"))
        assert json.loads(logs.JsonFormatter().format(record("x")))["request_id"] == "abcdef0123456789"
    finally:
        request_ids.enter("")
    assert "request_id" not in logs.LineFormatter().format(record("x"))
