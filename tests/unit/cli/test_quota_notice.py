"""A publisher hears of its quota before it is refused."""

import pytest

from oscirc import quota_notice
from oscirc_blockstore.errors import ServerRefusedError, UnreachableError

GIB = 1 << 30


def usage(unique, unique_limit, logical=0, logical_limit=None):
    limits = {"unique_bytes": unique_limit, "logical_bytes": logical_limit}
    return {"unique_bytes": unique, "logical_bytes": logical, "limits": limits}


class Server:
    def __init__(self, answer):
        self.answer = answer

    def call_json(self, method, path):
        assert (method, path) == ("GET", "publishers/alice/quota")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("found", [usage(89 * GIB, 100 * GIB), usage(GIB, None), usage(0, 100, 9, 100)])
def test_nothing_is_said_while_there_is_room(found, capsys):
    quota_notice.tell(Server(found), "alice")
    assert capsys.readouterr() == ("", "")


def test_the_numbers_are_said_once_nine_tenths_are_used(capsys):
    quota_notice.tell(Server(usage(90 * GIB, 100 * GIB, 200 * GIB, 190 * GIB)), "alice")
    unique, logical = capsys.readouterr().err.splitlines()
    assert "90.0 GiB of the 100.0 GiB" in unique
    assert "(unique, 90 %)" in unique
    assert "(logical, 105 %)" in logical


def test_a_limit_of_nothing_is_used_up():
    assert len(quota_notice.lines("alice", usage(0, 0))) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"unique_bytes": "9", "limits": {"unique_bytes": 1}},
        {"unique_bytes": 9, "limits": []},
        {"unique_bytes": True, "limits": {"unique_bytes": True}},
        ServerRefusedError("no", status=403),
        UnreachableError("gone"),
    ],
)
def test_a_server_that_says_no_numbers_costs_no_publication(answer, capsys):
    quota_notice.tell(Server(answer), "alice")
    assert capsys.readouterr() == ("", "")
