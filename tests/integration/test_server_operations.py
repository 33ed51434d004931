"""The server as operators run it: TLS with certificates renewed in place, metrics on a listener of their own, health
for scripts, and a stop that finishes or cleanly refuses what is under way."""

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.certificates import certificate
from support.commands import Workstation, end, free_port, initialise, wait_for_line

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import Api, block, make_world

from oscirc_server.clock import system_clock

TIMEOUT_S = 60
SECOND = "a second certificate"


@pytest.fixture
def operator(tmp_path):
    return Workstation(tmp_path / "operator")


@contextmanager
def running(operator, directory, *options, scheme="http"):
    """`oscirc serve` with these options: the process, its URL, and where its log is written."""
    port = free_port()
    log = operator.home / f"log-{port}"
    with log.open("wb") as errors:
        process = operator.start(
            "serve", "--data", directory, "--listen", f"127.0.0.1:{port}", *options,
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            wait_for_line(process, f"listening on {scheme}://127.0.0.1:{port}")
            yield process, f"{scheme}://127.0.0.1:{port}", log
        finally:
            end(process)


def presented(url):
    """The certificate that a server presents now."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    return ssl.get_server_certificate((host, port))


def test_tls_is_served_and_a_renewed_certificate_is_taken_up_without_a_restart(operator, tmp_path):
    repository = initialise(operator, tmp_path / "data")
    first, second = (certificate(_made(tmp_path / name)) for name in ("first", "second"))
    in_use = tmp_path / "in-use.pem"
    in_use.write_bytes(first.read_bytes())
    tls = ("--tls-cert", in_use, "--tls-key", in_use)
    with running(operator, repository.directory, *tls, scheme="https") as (process, url, log):
        trusted = ssl.create_default_context(cafile=str(first))
        with httpx.Client(verify=trusted, base_url=url) as client:
            answer = client.get("/metadata/timestamp.json")
            assert answer.status_code == 200
            old = ssl.create_default_context(cafile=str(first))
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSv1_1"):
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            with socket.create_connection(("127.0.0.1", httpx.URL(url).port)) as plain, pytest.raises(ssl.SSLError):
                old.wrap_socket(plain, server_hostname="127.0.0.1")
            before = presented(url)
            in_use.write_bytes(b"not a certificate")
            process.send_signal(signal.SIGHUP)
            _until(lambda: "the certificate stays as it was" in log.read_text())
            assert presented(url) == before
            in_use.write_bytes(second.read_bytes())
            process.send_signal(signal.SIGHUP)
            _until(lambda: presented(url) != before)
            assert client.get("/metadata/timestamp.json").status_code == 200  # over the connection that stood
        assert operator.json("serve", "health", url) == {"healthy": True, "failing": []}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tls-cert", "CERT"), "--tls-cert and --tls-key"),
        (("--tls-cert", "CERT", "--tls-key", "OTHER"), "cannot be used"),
        (("--tls-cert", "EMPTY", "--tls-key", "CERT"), "cannot be used"),
    ],
)
def test_certificates_that_cannot_be_used_are_told_at_the_start(operator, tmp_path, options, words):
    repository = initialise(operator, tmp_path / "data")
    files = {"CERT": certificate(_made(tmp_path / "a")), "OTHER": tmp_path / "other.pem", "EMPTY": tmp_path / "empty"}
    key = certificate(_made(tmp_path / "b")).read_text().partition("-----END PRIVATE KEY-----")
    files["OTHER"].write_text(key[0] + key[1] + "\n")
    files["EMPTY"].write_text("")
    given = [files.get(each, each) for each in options]
    told = operator.refused("serve", "--data", repository.directory, "--listen", "127.0.0.1:0", *given, code=2)
    assert words in told


def test_metrics_and_health_are_there_for_who_watches(operator, tmp_path):
    repository = initialise(operator, tmp_path / "data")
    port = free_port()
    with running(operator, repository.directory, "--metrics-listen", f"127.0.0.1:{port}") as (_, url, _log):
        assert httpx.get(f"{url}/metadata/timestamp.json").status_code == 200
        assert operator.run("serve", "health", url) == "well\n"
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'oscirc_server_requests_total{method="GET",route="/metadata",status="200"} 1.0' in page
        assert 'oscirc_server_role_expires_timestamp_seconds{role="timestamp"}' in page
        assert httpx.get(f"{url}/metrics").status_code == 404
        (repository.directory / "tmp").rename(tmp_path / "away")
        (repository.directory / "tmp").touch()
        assert operator.refused("serve", "health", url, code=6) == ""
        assert operator.run("serve", "health", url, "--live") == "well\n"
    assert "no server answers" in operator.refused("serve", "health", url, code=5)
    assert "not a server's URL" in operator.refused("serve", "health", "ftp://x", code=2)


def test_the_json_log_joins_a_request_to_what_it_did_and_holds_no_secret(operator, tmp_path):
    world = make_world(tmp_path, system_clock)
    alice = world.add_publisher("alice")
    with (
        running(operator, world.data, "--log-format", "json", "--log-level", "debug") as (process, url, log),
        httpx.Client(base_url=url, timeout=TIMEOUT_S) as client,
    ):
        api = Api(client, world.made.admin_token)
        made = api.call("POST", "tokens", json={"name": "ci", "scopes": ["publish:alice"]}).json()
        publishing = api.with_token(made["token"])
        assert publishing.publish(alice, "debian", "1.0", alice.build("debian", [block("a")])).status_code == 200
        stolen = client.get(f"/api/v1/images?token={made['token']}", headers={"Cookie": made["token"]})
        assert stolen.status_code == 200
        client.get(f"/blocks/{made['token']}")  # in the path, where it does not belong
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    text = log.read_text()
    assert made["token"] not in text
    assert world.made.admin_token not in text
    lines = [json.loads(line) for line in text.splitlines()]
    (released,) = [line for line in lines if line["event"] == "released"]
    (request,) = [line for line in lines if line.get("request_id") == released["request_id"] and "route" in line]
    assert request["route"] == "/api/v1/drafts/{draft_id}/release"
    assert (request["status"], request["token"]) == (200, made["id"])


def test_a_stop_during_a_download_lets_it_finish_and_takes_nobody_new(operator, tmp_path):
    world = make_world(tmp_path, system_clock)
    name, size = "a" * 64, 64 << 20
    with running(operator, world.data) as (process, url, log):
        (world.tree / "accel").mkdir(exist_ok=True)
        with (world.tree / "accel" / name).open("wb") as file:
            file.truncate(size)
        with httpx.stream("GET", f"{url}/accel/{name}", timeout=TIMEOUT_S) as answer:
            pieces = answer.iter_raw(1 << 20)
            got = len(next(pieces))
            process.send_signal(signal.SIGTERM)
            _until(lambda: _refuses(url))
            assert process.poll() is None
            got += sum(map(len, pieces))
        assert got == size
        assert process.wait(TIMEOUT_S) == 0
    assert "event=stopped" in log.read_text()


def test_a_stop_waits_for_nobody_for_ever_and_keeps_what_was_complete(operator, tmp_path):
    world = make_world(tmp_path, system_clock)
    alice = world.add_publisher("alice")
    disk = alice.build("debian", [block(str(number)) for number in range(90)])
    sent, go_on = threading.Event(), threading.Event()
    with (
        running(operator, world.data, "--stop-within", "1") as (process, url, log),
        httpx.Client(base_url=url, timeout=TIMEOUT_S) as client,
    ):
        api = Api(client, world.made.admin_token)
        draft = api.draft("alice", "debian", "1.0")

        def body():
            for record in disk.records[:60]:
                yield record.encoded()
            sent.set()
            go_on.wait(TIMEOUT_S)
            yield disk.records[60].encoded()

        def upload():
            try:
                outcome.append(api.call("POST", f"drafts/{draft}/frames", content=body()).status_code)
            except httpx.TransportError as error:
                outcome.append(type(error))

        outcome = []
        thread = threading.Thread(target=upload)
        thread.start()
        assert sent.wait(TIMEOUT_S)
        _until(lambda: sum(1 for _ in (world.tree / "blocks").rglob("*.zst")) >= 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
        go_on.set()
        thread.join(TIMEOUT_S)
        assert outcome in ([503], [httpx.WriteError], [httpx.ReadError])
    assert "Traceback" not in log.read_text()
    assert "route=/api/v1/drafts/{draft_id}/frames status=503" in log.read_text()
    with running(operator, world.data) as (process, url, log), httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        api = Api(client, world.made.admin_token)
        assert api.draft("alice", "debian", "1.0") == draft
        assert len(api.missing(draft, [record.digest for record in disk.records])) < len(disk.records)
        assert api.publish(alice, "debian", "1.0", disk).status_code == 200


def test_a_service_manager_hears_of_readiness_and_of_the_stop(operator, tmp_path):
    repository = initialise(operator, tmp_path / "data")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT_S)
        operator.extra["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with running(operator, repository.directory) as (process, url, _log):
            assert manager.recv(4096).decode() == f"READY=1\nSTATUS=listening on {url}"
            process.send_signal(signal.SIGHUP)
            assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).startswith(b"READY=1")
            process.send_signal(signal.SIGTERM)
            assert manager.recv(4096) == b"STOPPING=1"
            assert process.wait(TIMEOUT_S) == 0


def _made(directory):
    directory.mkdir()
    return directory


def _refuses(url):
    with socket.socket() as probe:
        return probe.connect_ex((httpx.URL(url).host, httpx.URL(url).port)) != 0


def _until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
