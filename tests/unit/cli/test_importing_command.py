"""`oscirc serve import` as an operator meets it who has lost a database."""

import json
import shutil

import pytest

from oscirc.__main__ import main

PASSPHRASE = "a passphrase for tests"


@pytest.fixture
def lost(tmp_path, monkeypatch):
    """A repository's data directory whose database is gone."""
    monkeypatch.setenv("OSCIRC_KEY_PASSPHRASE", PASSPHRASE)
    data = tmp_path / "data"
    url = "http://images.example/repo"
    assert main(["serve", "init", "--data", str(data), "--public-url", url, "--keys", str(tmp_path / "offline")]) == 0
    for path in data.glob("oscirc.db*"):
        path.unlink()
    return data


def test_a_lost_database_is_made_again_and_a_token_with_it(lost, tmp_path, capsys):
    capsys.readouterr()
    assert main(["serve", "import", str(lost), "--data", str(lost)]) == 0
    out, err = capsys.readouterr()
    assert "under the same root of trust" in err
    assert "http://images.example/repo#sha256=" in out
    assert "oscirc_" in out
    assert main(["serve", "status", "--data", str(lost)]) == 0


def test_a_dry_run_and_json(lost, tmp_path, capsys):
    fresh = tmp_path / "fresh"
    shutil.copytree(lost / "keys", fresh / "keys")
    capsys.readouterr()
    assert main(["serve", "import", str(lost), "--data", str(fresh), "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["relation"], facts["taken_over"], facts["admin_token"]) == ("new", {}, "")
    assert main(["serve", "import", str(lost), "--data", str(fresh), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["admin_token"].startswith("oscirc_")
    assert main(["serve", "import", str(lost), "--data", str(fresh), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["relation"], facts["admin_token"]) == ("same", "")


def test_lost_online_keys_are_said_and_the_root_key_helps(lost, tmp_path, capsys):
    fresh = tmp_path / "fresh"
    assert main(["serve", "import", str(lost), "--data", str(fresh)]) == 2
    assert "snapshot.pem" in capsys.readouterr().err
    assert main(["serve", "import", str(lost), "--data", str(fresh), "--keys", str(tmp_path / "offline")]) == 0
    assert (fresh / "tree" / "metadata" / "2.root.json").exists()
