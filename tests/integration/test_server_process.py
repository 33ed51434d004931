"""The server as a process: it says where it listens, stops in good order, survives being killed, and logs no secret."""

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import Api, block, make_world

from oscirc_server.clock import system_clock

TIMEOUT_S = 60
PROGRAM = """
import sys
from pathlib import Path
from oscirc_server.running import run
from oscirc_server.settings import Listen, Settings
run(Settings(data_dir=Path(sys.argv[1]), listen=Listen.parse("127.0.0.1:0")))
"""


@contextmanager
def process(data, log):
    with log.open("ab") as errors:
        command = [sys.executable, "-c", PROGRAM, str(data)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
            try:
                readable, _, _ = select.select([server.stdout], [], [], TIMEOUT_S)
                assert readable, "the server said nothing"
                line = server.stdout.readline()
                assert line.startswith("listening on http://127.0.0.1:"), (line, log.read_text())
                yield server, line.removeprefix("listening on ").strip()
            finally:
                if server.poll() is None:
                    server.kill()


@contextmanager
def connected(url, token):
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        yield Api(client, token)


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, system_clock)


@pytest.fixture
def alice(world):
    return world.add_publisher("alice")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish_and_ends_well(world, alice, tmp_path, number):
    disk = alice.build("debian", [block(str(index)) for index in range(40)])
    log = tmp_path / "log"
    with process(world.data, log) as (server, url), connected(url, world.made.admin_token) as api:
        draft = api.draft("alice", "debian", "1.0")
        begun = threading.Event()

        def body():
            yield disk.records[0].encoded()
            begun.set()
            os.kill(server.pid, number)
            for record in disk.records[1:]:
                yield record.encoded()

        answer = api.call("POST", f"drafts/{draft}/frames", content=body())
        assert begun.is_set()
        assert (answer.status_code, answer.json()["stored"]) == (200, len(disk.records))
        assert server.wait(TIMEOUT_S) == 0
    assert "event=stopped" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert world.administration.status().blocks == len(disk.records)


def test_a_killed_server_is_resumed_where_it_was(world, alice, tmp_path):
    disk = alice.build("debian", [block(str(index)) for index in range(60)])
    log = tmp_path / "log"
    half = disk.records[:30]
    with process(world.data, log) as (server, url), connected(url, world.made.admin_token) as api:
        draft = api.draft("alice", "debian", "1.0")
        assert api.upload(draft, half).status_code == 200
        more = b"".join(record.encoded() for record in disk.records[30:45])

        def body():
            yield more
            server.kill()
            server.wait(TIMEOUT_S)
            yield disk.records[45].encoded()

        with pytest.raises(httpx.TransportError):
            api.call("POST", f"drafts/{draft}/frames", content=body())
    with process(world.data, log) as (server, url), connected(url, world.made.admin_token) as api:
        assert api.http.get("/api/v1/images").json()["images"] == []
        assert api.draft("alice", "debian", "1.0") == draft
        lacking = set(api.missing(draft, [record.digest for record in disk.records]))
        assert not lacking & {record.digest for record in half}
        assert api.upload(draft, [record for record in disk.records if record.digest in lacking]).status_code == 200
        assert api.publish(alice, "debian", "1.0", disk).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0


def test_the_log_is_lines_of_facts_without_secrets(world, alice, tmp_path):
    log = tmp_path / "log"
    with process(world.data, log) as (server, url), connected(url, world.made.admin_token) as api:
        made = api.call("POST", "tokens", json={"name": "ci", "scopes": ["publish:alice"]}).json()
        assert (
            api.with_token(made["token"])
            .publish(alice, "debian", "1.0", alice.build("debian", [block("a")]))
            .status_code
            == 200
        )
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_S) == 0
    text = log.read_text()
    assert made["token"] not in text
    assert world.made.admin_token not in text
    lines = text.splitlines()
    assert all(line.startswith("time=20") and " level=" in line and " event=" in line for line in lines), text
    assert any("event=released version=alice/debian@1.0" in line for line in lines)
