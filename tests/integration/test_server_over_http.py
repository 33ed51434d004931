"""A real server on loopback: publishing, reading, renewing, stopping, and clients that misbehave."""

import contextlib
import functools
import http.server
import shutil
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tuf.ngclient import Updater

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server"))
from server_world import (
    FRAMES,
    PASSPHRASE,
    Api,
    block,
    body_of,
    make_world,
)

from oscirc_blockstore.errors import BusyError, LocalError
from oscirc_server.clock import system_clock
from oscirc_server.protocol import GuardedProtocol
from oscirc_server.running import run
from oscirc_server.services.frame_records import MAX_BODY_BYTES
from oscirc_server.settings import Listen

TIMEOUT_S = 60


@contextmanager
def serving(settings):
    """The server in a thread; gives its base URL, and stops it as a signal would."""
    ready, stop = threading.Event(), threading.Event()
    found, failed = [], []

    def announce(url):
        found.append(url)
        ready.set()

    def serve():
        try:
            run(settings, announce, stop=stop)
        except BaseException as error:  # noqa: BLE001  (raised again where the test waits)
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(TIMEOUT_S)
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        stop.set()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert not failed


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, system_clock)


@pytest.fixture
def alice(world):
    return world.add_publisher("alice")


@pytest.fixture
def base_url(world):
    with serving(world.settings) as url:
        yield url


@contextmanager
def connected(url, token):
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        yield Api(client, token)


@pytest.fixture
def api(base_url, world):
    with connected(base_url, world.token("publish:alice")) as api:
        yield api


@contextmanager
def static_server(directory):
    """A plain file server that knows nothing of oscirc."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def client_of(url, state, bootstrap):
    (state / "targets").mkdir(parents=True)
    return Updater(str(state), f"{url}/metadata/", str(state / "targets"), f"{url}/targets/", bootstrap=bootstrap)


@pytest.mark.parametrize("where", ["the server itself", "a copy on a plain file server"])
def test_python_tufs_client_accepts_what_was_published(world, alice, api, base_url, tmp_path, where):
    assert api.publish(alice, "debian", "1.0", alice.build("debian", [block("a"), None])).status_code == 200
    digest = world.made.root_digest
    with static_server(shutil.copytree(world.tree, tmp_path / "copy")) as mirror:
        url = base_url if where == "the server itself" else mirror
        root = httpx.get(f"{url}/roots/{digest}.json").content
        client = client_of(url, tmp_path / "state", root)
        client.refresh()
        found = client.download_target(client.get_targetinfo("alice/debian.json"))
    assert Path(found).read_bytes() == alice.indexes["debian"].serialise()


def test_many_connections_upload_at_once_and_every_byte_arrives(world, alice, api):
    disk = alice.build("debian", [block(str(number)) for number in range(600)])
    draft = api.draft("alice", "debian", "1.0")
    parts = [disk.records[start::6] for start in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda part: api.upload(draft, part).json(), parts))
    assert sum(answer["stored"] for answer in answers) == len(disk.records)
    assert api.missing(draft, [record.digest for record in disk.records]) == []
    for record in disk.records:
        answer = api.http.get(f"/blocks/sha256/{record.digest.hex()[:2]}/{record.digest.hex()}.zst")
        assert answer.content == record.frame


def test_two_connections_that_send_the_same_frames_store_each_once(world, alice, api):
    disk = alice.build("debian", [block(str(number)) for number in range(200)])
    draft = api.draft("alice", "debian", "1.0")
    with ThreadPoolExecutor(4) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: api.upload(draft, disk.records), range(4))]
    assert sum(answer["stored"] for answer in answers) == len(disk.records)
    assert all(answer["stored"] + answer["present"] == len(disk.records) for answer in answers)
    assert world.administration.status().blocks == len(disk.records)


def pieces(total, size=65536):
    for start in range(0, total, size):
        yield bytes(min(size, total - start))


def test_a_body_without_a_length_is_bounded_while_it_is_read(api, alice):
    draft = api.draft("alice", "debian", "1.0")
    answer = api.call("PUT", f"drafts/{draft}/manifest", content=pieces(1 << 20))
    assert (answer.status_code, answer.json()["type"]) == (413, "BodyTooLargeError")
    record = alice.build("debian", [block("a")]).blocks[0].encoded()
    endless = (record for _ in range(2 * MAX_BODY_BYTES // len(record)))
    answer = api.call("POST", f"drafts/{draft}/frames", content=endless, headers={"Content-Type": FRAMES})
    assert (answer.status_code, answer.json()["type"]) == (413, "BodyTooLargeError")
    assert api.call("GET", f"drafts/{draft}").status_code == 200


def raw_request(url, head, body):
    """A request written by hand, of which the rest never comes."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S)
    connection.sendall(head.encode() + body)
    return connection


def test_an_upload_that_breaks_off_keeps_its_whole_records(world, alice, api, base_url):
    disk = alice.build("debian", [block(str(number)) for number in range(8)])
    draft = api.draft("alice", "debian", "1.0")
    body = body_of(disk.records)
    head = (
        f"POST /api/v1/drafts/{draft}/frames HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sent = disk.records[:5]
    raw_request(base_url, head, body_of(sent) + disk.records[5].encoded()[:1000]).close()
    digests = [record.digest for record in disk.records]
    for _ in range(1000):  # the server notices the closed connection when it reads
        lacking = api.missing(draft, digests)
        if len(lacking) <= len(digests) - len(sent):
            break
    assert lacking == digests[5:]


def test_a_body_that_stalls_is_given_up(world, alice):
    with serving(world.settings) as url, connected(url, world.made.admin_token) as api:
        draft = api.draft("alice", "debian", "1.0")
    with serving(replace(world.settings, stalled_body_s=0.2)) as url:
        head = (
            f"POST /api/v1/drafts/{draft}/frames HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
            "Content-Length: 1000\r\n\r\n"
        )
        with raw_request(url, head, b"x") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_never_ends_is_given_up(world, monkeypatch):
    monkeypatch.setattr(GuardedProtocol, "head_timeout_s", 0.2)
    with serving(world.settings) as url:
        for begin in ("", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            with raw_request(url, begin, b"") as connection:
                assert connection.recv(100) == b""
        monkeypatch.setattr(GuardedProtocol, "head_timeout_s", 30)
        with raw_request(url, "GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            monkeypatch.setattr(GuardedProtocol, "head_timeout_s", 0.2)
            connection.sendall(b"GET ")
            while connection.recv(1000):
                pass
        monkeypatch.setattr(GuardedProtocol, "head_timeout_s", 30)
        long = "GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + "x" * (1 << 20)
        with raw_request(url, "", b"") as connection, contextlib.suppress(OSError):
            connection.sendall(long.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"{url}/api/v1/health/live").status_code == 200


def test_two_publishers_release_at_the_same_moment_and_both_stand(world, alice, base_url):
    publishers = [alice, world.add_publisher("bob"), world.add_publisher("carol")]
    ready = threading.Barrier(len(publishers))

    def publish(publisher):
        with connected(base_url, world.token(f"publish:{publisher.name}")) as api:
            disk = publisher.build("debian", [block(publisher.name)])
            draft = api.stage(publisher, "debian", "1.0", disk)
            offer = publisher.offer({"debian": publisher.index_with("debian", "1.0", disk.digest)})
            ready.wait()
            return api.call("POST", f"drafts/{draft}/release", json=offer)

    with ThreadPoolExecutor(len(publishers)) as pool:
        answers = list(pool.map(publish, publishers))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["snapshot_version"] for answer in answers}) == 3
    assert {image["publisher"] for image in httpx.get(f"{base_url}/api/v1/images").json()["images"]} == {
        "alice",
        "bob",
        "carol",
    }


def test_renewals_and_rotations_beside_a_running_server(world, alice, api, base_url, tmp_path):
    root = (world.tree / "metadata/1.root.json").read_bytes()
    for step, act in enumerate(
        (
            lambda: world.administration.resign("root", world.keys, PASSPHRASE),
            lambda: world.administration.rotate("timestamp", world.keys, PASSPHRASE),
            lambda: world.administration.rotate("targets", world.keys, PASSPHRASE),
            lambda: world.administration.resign("targets", world.keys, PASSPHRASE),
        )
    ):
        act()
        disk = alice.build("debian", [block(f"step {step}")])
        assert api.publish(alice, "debian", f"1.{step}", disk).status_code == 200
        client = client_of(base_url, tmp_path / f"state-{step}", root)
        client.refresh()
        assert client.get_targetinfo("alice/debian.json") is not None
    ready = httpx.get(f"{base_url}/api/v1/health/ready")
    assert ready.json() == {"status": "ok", "failing": []}


def test_one_directory_has_one_server_and_one_port_one_listener(world, base_url, tmp_path):
    with pytest.raises(BusyError), serving(world.settings):
        pass
    other = make_world(tmp_path / "other", system_clock)
    taken = replace(other.settings, listen=Listen("127.0.0.1", urlsplit(base_url).port))
    with pytest.raises(LocalError, match="cannot listen"), serving(taken):
        pass


def test_frames_are_served_in_parts_and_not_again_when_known(api, alice):
    disk = alice.build("debian", [block("a")])
    draft = api.draft("alice", "debian", "1.0")
    api.upload(draft, disk.records)
    record = disk.blocks[0]
    path = f"/blocks/sha256/{record.digest.hex()[:2]}/{record.digest.hex()}.zst"
    part = api.http.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, record.frame[100:200])
    known = api.http.get(path, headers={"If-None-Match": part.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    head = api.http.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(record.frame)))
    assert api.http.get(f"{path}?bad={record.digest.hex()}").content == record.frame
    gone = api.http.get(path.replace(".zst", ".zs"))
    assert (gone.status_code, gone.headers["cache-control"]) == (404, "no-store")
