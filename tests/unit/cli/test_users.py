"""`oscirc user password --own`: the present password goes with the new one, to the account of the token alone."""

import pytest

from oscirc.__main__ import main
from oscirc.commands import users


@pytest.fixture
def calls(monkeypatch):
    made = []

    def call(_remote, _token_file, method, path, document=None):
        made.append((method, path, document))
        return {"account": "bea"}

    monkeypatch.setattr(users, "api_call", call)
    return made


@pytest.fixture
def files(tmp_path):
    (tmp_path / "present").write_text("correct horse battery\n")
    (tmp_path / "new").write_text("a new horse battery\n")
    return ["--present-file", str(tmp_path / "present"), "--password-file", str(tmp_path / "new")]


def test_ones_own_password_is_sent_with_the_present_one(calls, files):
    assert main(["user", "password", "bea", "--own", *files]) == 0
    document = {"present": "correct horse battery", "password": "a new horse battery"}
    assert calls == [("GET", "whoami", None), ("PUT", "whoami/password", document)]


@pytest.mark.parametrize("arguments", [["olga", "--own"], ["bea", "--own", "--remove"]])
def test_anothers_password_and_taking_ones_own_away_are_refused(calls, files, arguments, capsys):
    assert main(["user", "password", *arguments, *files]) == 2
    assert [call for call in calls if call[0] != "GET"] == []
    assert "oscirc:" in capsys.readouterr().err


def test_without_a_terminal_the_present_password_is_a_files(calls, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["user", "password", "bea", "--own"]) == 2
    assert "--present-file" in capsys.readouterr().err
