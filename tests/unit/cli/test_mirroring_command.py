"""`oscirc mirror sync` as somebody at a terminal, or a timer, meets it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.fault_server import FaultServer, flip_bit, stall
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc.__main__ import main

DISK = b"".join(os.urandom(BLOCK_SIZE) for _ in range(6))


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


@pytest.fixture
def repository():
    made = RepositorySimulator()
    made.publish("alice", "debian", "1", DISK)
    return made


@pytest.fixture
def server(repository):
    with FaultServer(repository.files) as server:
        yield server


def test_a_line_makes_a_replica_and_a_remote_by_name_too(home, server, repository, capsys):
    line = repository.line(server.url)
    assert main(["mirror", "sync", line, str(home / "one"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["versions"], facts["completed"], facts["blocks"], facts["published"]) == (1, 1, 7, True)
    assert (home / "one" / "tree" / "metadata" / "timestamp.json").exists()
    assert main(["remote", "add", "home", line]) == 0
    assert main(["mirror", "sync", "home", str(home / "two")]) == 0
    assert "1 of 1 versions, 1 of them new; fetched 7 blocks and nodes" in capsys.readouterr().err


def test_a_dry_run_tells_the_bytes(home, server, repository, capsys):
    assert main(["mirror", "sync", repository.line(server.url), str(home / "m"), "--dry-run"]) == 0
    assert "7 blocks and nodes to fetch, 416.0 KiB at most" in capsys.readouterr().out
    assert not list((home / "m" / "tree").rglob("*.zst"))


def test_damaged_bytes_end_with_7_and_say_which_version(home, server, repository, capsys):
    server.inject("blocks/*", flip_bit())
    assert main(["mirror", "sync", repository.line(server.url), str(home / "m"), "--json"]) == 7
    out, err = capsys.readouterr()
    assert json.loads(out)["refused"][0]["version"] == "alice/debian@1"
    assert "alice/debian@1" in json.loads(err)["message"]


def test_no_network_ends_with_5(home, server, repository):
    line = repository.line(server.url)
    assert main(["mirror", "sync", line, str(home / "m")]) == 0
    server.close()
    assert main(["mirror", "sync", line, str(home / "m")]) == 5


def test_ctrl_c_ends_with_130_and_leaves_no_half_files(home, server, repository):
    server.inject("blocks/*", stall())
    line = repository.line(server.url)
    command = [sys.executable, "-m", "oscirc", "mirror", "sync", line, str(home / "m")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server.wait_until_asked("blocks/*")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in told
    assert list((home / "m" / "tmp").iterdir()) == []
    assert not (home / "m" / "tree" / "metadata").exists()
    server.heal()
    assert main(["mirror", "sync", line, str(home / "m")]) == 0


def test_prune_says_what_went_and_what_waits(home, server, repository, capsys):
    line = repository.line(server.url)
    assert main(["mirror", "sync", line, str(home / "m")]) == 0
    repository.publish("bob", "arch", "1", DISK[: 2 * BLOCK_SIZE])
    assert main(["mirror", "sync", line, str(home / "m"), "--images", "bob", "--prune"]) == 0
    assert "removed 0 files" in capsys.readouterr().err
    assert main(["mirror", "sync", line, str(home / "m"), "--images", "bob", "--prune", "--grace", "0"]) == 0
    said = capsys.readouterr().err
    assert "removed 0 files" not in said
    assert "0 (0 B) that nothing names" in said


def test_status_tells_what_there_is_and_warns_of_its_end(home, server, repository, capsys):
    line = repository.line(server.url)
    assert main(["mirror", "status", str(home / "m")]) == 3
    assert main(["mirror", "sync", line, str(home / "m")]) == 0
    capsys.readouterr()
    assert main(["mirror", "status", str(home / "m")]) == 0
    assert "1 whole versions; 7 blocks and nodes" in capsys.readouterr().out
    assert main(["mirror", "status", str(home / "m"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"]
    (home / "m" / "tree" / "metadata" / "timestamp.json").unlink()
    assert main(["mirror", "status", str(home / "m")]) == 4
