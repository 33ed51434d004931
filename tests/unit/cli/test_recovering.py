"""`oscirc serve recover` and `adopt` as an operator types them: what is shown first, what is refused, exit codes."""

import json
import time

import pytest

from oscirc.__main__ import main
from oscirc_server.initialising import initialise

PASSPHRASE = "a passphrase for tests"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A repository into whose store a thief put a snapshot far ahead, signed with its own key or not."""
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    initialise(tmp_path / "data", tmp_path / "keys", PASSPHRASE, None, "test", clock=time.time)
    (tmp_path / "data/tree/metadata/2147483648.snapshot.json").write_bytes(b"{}")
    return tmp_path / "data"


def test_jumps_are_shown_before_anything_is_changed(data, capsys):
    assert main(["serve", "recover", "--data", str(data), "--dry-run", "--before-jumps"]) == 0
    shown = capsys.readouterr().out
    assert "jumped from 1" in shown
    assert "back to 1" in shown
    assert main(["serve", "recover", "--data", str(data), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"role": "snapshot", "highest": 2147483648, "before_jump": 1} in found["roles"]
    assert (data / "tree/metadata/2147483648.snapshot.json").exists()


def test_a_recovery_says_what_is_to_be_forgotten(data, tmp_path, capsys):
    keys = ["--keys", str(tmp_path / "keys")]
    assert main(["serve", "recover", "--data", str(data), *keys, "--before-jumps", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["removed"] == ["metadata/2147483648.snapshot.json"]
    assert (found["root_version"], found["snapshot_version"]) == (2, 2)
    assert main(["serve", "status", "--data", str(data), "--check"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--keys", "KEYS", "--back-to", "snapshot"], 2),
        (["--keys", "KEYS", "--back-to", "=3"], 2),
        (["--keys", "KEYS", "--back-to", "snapshot=x"], 2),
        (["--keys", "KEYS", "--back-to", "root=1"], 2),
        (["--keys", "KEYS", "--back-to", "nobody=1"], 3),
        (["--keys", "DATA", "--before-jumps"], 3),
    ],
)
def test_what_cannot_be_recovered_is_refused_and_changes_nothing(data, tmp_path, arguments, code, capsys):
    places = {"KEYS": str(tmp_path / "keys"), "DATA": str(data)}
    given = [places.get(argument, argument) for argument in arguments]
    assert main(["serve", "recover", "--data", str(data), *given]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert not (data / "tree/metadata/2.root.json").exists()


def test_a_source_that_is_none_is_refused(data, tmp_path, capsys):
    assert main(["serve", "adopt", str(tmp_path), "--data", str(data)]) == 3
    assert main(["serve", "adopt", "ftp://mirror.example", "--data", str(data)]) == 3
    assert "neither a mirror" in capsys.readouterr().err
    assert main(["serve", "adopt", str(data / "tree"), "--data", str(data), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
