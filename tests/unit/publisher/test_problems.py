import json

import pytest

from oscirc_blockstore import errors
from oscirc_publisher.problems import printable, refusal


def problem(kind, **members):
    return json.dumps({"type": kind, "title": "T", "detail": "in its own words", **members}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "NameRefusedError", errors.NameRefusedError),
        (404, "NotFoundError", errors.NotFoundError),
        (404, "Whatever", errors.NotFoundError),
        (422, "FrameRefusedError", errors.FrameRefusedError),
        (422, "DigestMismatchError", errors.DigestMismatchError),
        (403, "SignatureRefusedError", errors.SignatureRefusedError),
        (403, "ScopeError", errors.ServerRefusedError),
        (401, "UnauthenticatedError", errors.ServerRefusedError),
        (409, "RoleConflictError", errors.ServerRefusedError),
        (409, "UsageError", errors.ServerRefusedError),
        (422, "MissingBlocksError", errors.ServerRefusedError),
        (500, "TrustError", errors.ServerRefusedError),
        (400, "StoreFullError", errors.ServerRefusedError),
        (400, "OscircError", errors.ServerRefusedError),
        (400, "__class__", errors.ServerRefusedError),
    ],
)
def test_a_problem_becomes_the_error_that_it_may_name(status, kind, expected):
    error = refusal(status, problem(kind))
    assert type(error) is expected
    assert "in its own words" in str(error)


def test_members_and_hints_reach_the_caller():
    error = refusal(409, problem("RoleConflictError", current_version=7, hint="merge"))
    assert error.problem["current_version"] == 7
    assert error.hint == "merge"
    assert error.status == 409


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_has_a_hint(status):
    assert "oscirc login" in refusal(status, b"").hint


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b'{"type": 7, "detail": ["x"]}'])
def test_a_refusal_without_a_problem_is_still_one(raw):
    error = refusal(503, raw)
    assert isinstance(error, errors.ServerRefusedError)
    assert error.retryable


def test_words_are_made_printable_and_short():
    assert printable("a\x1b[31mb\x07\u202ec") == "a [31mb  c"
    assert len(printable("x" * 10**6)) == 1000
    assert "\x1b" not in str(refusal(400, problem("X", detail="\x1b]0;own\x07")))
