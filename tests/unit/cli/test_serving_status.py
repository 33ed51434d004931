"""`oscirc serve status` as monitoring runs it, and repositories that are not made while signatures are missing."""

import json
import time

import pytest

from oscirc.__main__ import main
from oscirc_server.initialising import initialise

PASSPHRASE = "a passphrase for tests"
DAY_S = 86_400


def made(directory, age_s=0):
    initialise(directory / "data", directory / "keys", PASSPHRASE, None, "test", clock=lambda: time.time() - age_s)
    return str(directory / "data")


@pytest.mark.parametrize(
    ("age_s", "code", "word"),
    [(0, 0, "OK"), (2 * DAY_S, 4, "WARNING"), (6 * DAY_S, 4, "CRITICAL"), (400 * DAY_S, 4, "EXPIRED")],
)
def test_the_exit_code_says_whether_something_has_to_be_done(tmp_path, capsys, age_s, code, word):
    data = made(tmp_path, age_s)
    assert main(["serve", "status", "--data", data, "--check"]) == code
    line = capsys.readouterr().out
    assert line.startswith(f"{word}: ")
    assert line.count("\n") == 1
    assert main(["serve", "status", "--data", data, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert (found["severity"], found["healthy"]) == (word.lower(), code == 0)
    assert main(["serve", "status", "--data", data]) == code
    assert "KEYS OF" in capsys.readouterr().out


def test_renewing_ends_the_alarm(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    data, keys = made(tmp_path, 400 * DAY_S), str(tmp_path / "keys")
    assert main(["serve", "resign", "targets", "--data", data, "--keys", keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 2
    assert main(["serve", "resign", "online", "--data", data]) == 0
    assert main(["serve", "status", "--data", data, "--check"]) == 0


def test_a_rotation_can_be_tried_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    data, keys = made(tmp_path), str(tmp_path / "keys")
    for expected, arguments in ((2, ["--dry-run"]), (2, ["--dry-run"]), (2, []), (3, [])):
        assert main(["serve", "rotate", "online", "--data", data, "--keys", keys, "--json", *arguments]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["version"], found["dry_run"]) == (expected, bool(arguments))
    assert main(["serve", "rotate", "online", "--data", data, "--keys", data]) == 3
    assert "oscirc ceremony" in capsys.readouterr().err


def test_no_repository_is_made_while_signatures_are_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    assert main(["key", "create", "anna"]) == 0
    capsys.readouterr()
    assert main(["key", "export", "anna"]) == 0
    (tmp_path / "anna.pub").write_text(capsys.readouterr().out)
    data = str(tmp_path / "data")
    assert main(["serve", "online-keys", "--data", data, "-o", "online.json"]) == 0
    assert main(["serve", "online-keys", "--data", data, "-o", "online.json"]) == 0  # the same ones again
    both = ["--root", "anna.pub", "--targets", "anna.pub", "--public-url", "https://images.example/repo"]
    assert main(["ceremony", "new", "online.json", *both, "-o", "first.request"]) == 0
    assert main(["serve", "init", "--data", data, "--ceremony", "first.request"]) == 4
    assert main(["serve", "status", "--data", data]) != 0
    assert main(["ceremony", "sign", "first.request", "--key", "anna", "--yes", "-o", "signed"]) == 0
    capsys.readouterr()
    assert main(["serve", "init", "signed", "--data", data, "--ceremony", "first.request", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remote_url"].startswith("https://images.example/repo#sha256=")
    assert main(["serve", "init", "signed", "--data", data, "--ceremony", "first.request"]) == 6
    assert main(["serve", "status", "--data", data, "--check"]) == 0
