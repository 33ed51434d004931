"""nginx in front, with the files of `deploy/nginx/`: the tree by sendfile from a directory, or kept from a bucket; the API
and the pages passed on; every error a problem that nobody keeps; TLS.

One repository for all: published through the one front, read through both, whose store is the same directory as S3.
"""

import contextlib
import json
import random
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support import front as fronts
from support.certificates import certificate
from support.commands import Repository, Workstation, add_publisher, end, free_port, wait_for_line
from support.front import Front, line_of
from support.s3 import s3_server

from oscirc_server.tree_paths import IMMUTABLE

MIB = 1 << 20


@dataclass
class World:
    """One repository behind two fronts."""

    station: Workstation
    repository: Repository
    disk: Path
    pem: Path
    server_log: Path
    directory: Front
    bucket: Front
    store_port: int

    def client(self, front):
        return httpx.Client(base_url=front.url, verify=ssl.create_default_context(cafile=str(self.pem)), timeout=60)

    def block(self, number=0):
        """The path of a block, in the order of names."""
        found = sorted((self.repository.tree / "blocks").rglob("*.zst"))[number]
        return "/" + found.relative_to(self.repository.tree).as_posix()

    def file(self, path):
        return self.repository.tree / path[1:]

    def logged(self):
        """What the server logged, whole lines only."""
        lines = self.server_log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


@contextlib.contextmanager
def _server(station, directory, port, log):
    with log.open("wb") as errors:
        options = ("--log-format", "json", "--log-level", "debug")
        process = station.start(
            "serve", "--data", directory, "--listen", f"127.0.0.1:{port}", *options,
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            wait_for_line(process, "listening on")
            yield
        finally:
            end(process)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    work = tmp_path_factory.mktemp("front")
    pem = certificate(work)
    station = Workstation(work / "station", extra={"SSL_CERT_FILE": str(pem)})
    data, disk, log = work / "data", work / "disk.raw", work / "server.log"
    content = random.Random(5)
    with disk.open("wb") as file:
        file.write(content.randbytes(3 * MIB))
        file.truncate(8 * MIB)
    directory, bucket = fronts.new_front(work / "directory"), fronts.new_front(work / "bucket")
    made = station.json("serve", "init", "--data", data, "--public-url", directory.url)
    repository = Repository(data, data / "keys", made["remote_url"], made["admin_token"], free_port())
    with contextlib.ExitStack() as stack:
        stack.enter_context(_server(station, data, repository.port, log))
        (work / "store" / "buckets").mkdir(parents=True)
        (work / "store" / "buckets" / "images").symlink_to(data / "tree")
        store = stack.enter_context(s3_server(work / "store", anonymous=True))
        changes = fronts.machine_changes(directory, repository.port, data / "tree", pem)
        stack.enter_context(fronts.running(directory, "machine", changes))
        changes = fronts.compose_changes(bucket, repository.port, store.port, "images", pem)
        stack.enter_context(fronts.running(bucket, "compose", changes))
        add_publisher(station, repository, "alice")
        published = ("--key", "alice", "--firmware", "bios", "--block-size", 65536)
        station.run("publish", disk, "test:alice/debian@1", *published)
        yield World(station, repository, disk, pem, log, directory, bucket, store.port)


@pytest.fixture(params=["directory", "bucket"])
def front(world, request):
    return getattr(world, request.param)


@pytest.fixture
def http(world, front):
    with world.client(front) as client:
        yield client


def is_problem(answer, status, kind):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"].endswith("no-store")  # of a 416 nginx says both, and this one counts
    body = answer.json()
    assert (body["type"], body["status"]) == (kind, status)
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert answer.headers["x-request-id"] == body["request_id"]
    return body


@pytest.mark.fuse
def test_what_was_published_through_nginx_is_mounted_and_read_through_it(world, front, tmp_path):
    reader = Workstation(tmp_path / "reader", extra={"SSL_CERT_FILE": str(world.pem)})
    reader.run("remote", "add", "test", world.repository.url.replace(world.directory.url, front.url))
    place = tmp_path / "mnt"
    place.mkdir()
    reader.run("mount", "test:alice/debian", place)
    try:
        assert (place / "disk.raw").read_bytes() == world.disk.read_bytes()
    finally:
        reader.run("umount", place)
    assert [image["image"] for image in reader.json("images", "--remote", "test")["images"]] == ["debian"]


def test_files_have_the_headers_that_the_server_gives_them(world, http):
    with httpx.Client(base_url=f"http://127.0.0.1:{world.repository.port}") as plain:
        for path in (world.block(), "/metadata/timestamp.json", "/metadata/1.root.json", *_accelerators(world)):
            ours, servers = http.get(path), plain.get(path)
            assert (ours.status_code, ours.content) == (200, servers.content)
            for header in ("content-type", "cache-control", "x-content-type-options"):
                assert ours.headers.get_list(header) == servers.headers.get_list(header), (path, header)
            assert "content-encoding" not in ours.headers
            assert ours.headers["strict-transport-security"]
            assert http.head(path).headers["content-length"] == str(len(servers.content))
    assert http.get(world.block()).headers["cache-control"] == IMMUTABLE


def _accelerators(world):
    found = sorted(path for path in (world.repository.tree / "accel").rglob("*") if path.is_file())
    paths = ["/" + path.relative_to(world.repository.tree).as_posix() for path in found]
    assert {path.endswith(".json") for path in paths} == {True, False}
    return paths


def test_ranges_and_conditions_are_answered(world, http):
    path = world.block()
    whole = world.file(path).read_bytes()
    part = http.get(path, headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, whole[5:15])
    assert part.headers["cache-control"] == IMMUTABLE
    several = http.get(path, headers={"Range": "bytes=0-1,3-4,7-9"})
    assert (several.status_code, several.content) == (200, whole)
    is_problem(http.get(path, headers={"Range": f"bytes={len(whole)}-"}), 416, "RangeNotSatisfiableError")
    again = http.get(path, headers={"If-None-Match": http.get(path).headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == IMMUTABLE


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/blocks/sha256/00/" + "0" * 64 + ".zst", 404),
        ("/metadata/999.root.json", 404),
        ("/accel/" + "0" * 64, 404),
        ("/accel/" + "0" * 64 + ".json", 404),
        ("/metadata/.hidden", 404),
        ("/metadata", 404),
        ("/accel/.hidden.json", 404),
        ("/blocks/../keys/root.pem", 404),
        ("/blocks/%2e%2e/%2e%2e/keys/root.pem", 400),
        ("/metadata/..%2f..%2fkeys%2froot.pem", 400),
        ("/metadata/TIMESTAMP.json", 404),
        ("/metrics", 404),
    ],
)
def test_what_is_no_file_is_a_problem_that_no_cache_keeps(http, path, status):
    with http.stream("GET", httpx.URL(str(http.base_url)).copy_with(raw_path=path.encode())) as answer:
        answer.read()
    is_problem(answer, status, "NotFoundError" if status == 404 else "RequestRefusedError")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_files_are_only_read(world, http, method):
    answer = http.request(method, world.block())
    is_problem(answer, 405, "MethodNotAllowedError")
    assert answer.headers["allow"] == "GET, HEAD"


def test_the_servers_own_problems_and_headers_pass(world, http):
    answer = http.get("/api/v1/images/alice/none")
    is_problem(answer, 404, "NotFoundError")
    servers = httpx.get(f"http://127.0.0.1:{world.repository.port}/api/v1/images").headers
    ours = http.get("/api/v1/images").headers
    for header in ("cache-control", "etag", "x-content-type-options", "content-type"):
        assert ours.get_list(header) == servers.get_list(header), header
    page = http.get("/images/alice/debian")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["strict-transport-security"]
    (style,) = re.findall(r'"[./]*(assets/[a-z0-9.]+css)"', page.text)
    assert http.get(f"/{style}").headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    ("method", "path", "size", "status"),
    [
        ("POST", "/api/v1/drafts/x/frames", 17 * MIB + 1, 413),
        ("POST", "/api/v1/drafts/x/frames", 17 * MIB, 401),
        ("PUT", "/api/v1/roles/root", 33 * MIB + 1, 413),
        ("PUT", "/api/v1/images/a/b/versions/1/accelerators/bundle/boot?sha256=" + "0" * 64, 40 * MIB, 401),
        ("POST", "/login", 64 * 1024 + 1, 413),
    ],
)
def test_bodies_are_bounded_by_kind_before_they_are_sent_on(world, front, method, path, size, status):
    """The head alone is sent: that is all that may be needed to refuse."""
    tls = ssl.create_default_context(cafile=str(world.pem))
    with (
        socket.create_connection(("127.0.0.1", front.port), 30) as plain,
        tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(65536).decode()
    assert answer.startswith(f"HTTP/1.1 {status} "), answer
    assert "application/problem+json" in answer


def test_uploads_reach_the_server_while_they_are_sent(world, http):
    token = {"Authorization": f"Bearer {world.repository.token}"}
    names = {"publisher": "alice", "image": "other", "version": "1", "block_size": 65536}
    draft = http.post("/api/v1/drafts", json=names, headers=token).json()["id"]

    def body():
        yield b"no digest, no size, no frame".ljust(64, b"-")  # the server refuses at once
        yield b"-" * MIB

    answer = http.post(f"/api/v1/drafts/{draft}/frames", content=body(), headers=token)
    assert answer.status_code == 422
    assert http.delete(f"/api/v1/drafts/{draft}", headers=token).status_code == 204


def test_a_request_has_one_id_in_both_logs_and_only_nginx_says_who_asks(world, front, http):
    spoofed = {"X-Request-Id": "0123456789abcdef", "X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    told = http.get("/api/v1/images?secret=in-the-query", headers=spoofed).headers["x-request-id"]
    assert told != spoofed["X-Request-Id"]
    mine = front.line_of(told)
    assert (mine["path"], mine["status"], mine["client"], mine["tls"]) == (
        "/api/v1/images",
        200,
        "127.0.0.1",
        "TLSv1.3",
    )
    servers = line_of(world.logged, told)
    assert (servers["path"], servers["client"], servers["status"]) == ("/api/v1/images", "127.0.0.1", 200)
    assert "in-the-query" not in (front.work / "access.log").read_text() + world.server_log.read_text()


def test_without_tls_everybody_is_led_to_it_and_old_tls_is_refused(world, front):
    led = httpx.get(f"http://127.0.0.1:{front.plain_port}/metadata/timestamp.json?x=1")
    assert led.status_code == 301
    assert led.headers["location"] == "https://127.0.0.1/metadata/timestamp.json?x=1"
    modern = ssl.create_default_context(cafile=str(world.pem))
    modern.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", front.port), 30) as plain,
        modern.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert (connection.selected_alpn_protocol(), connection.version()) == ("h2", "TLSv1.3")
    old = ssl.create_default_context(cafile=str(world.pem))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", front.port), 30) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_question_does_not_change_what_a_file_is(world, http):
    path = world.block(1)
    assert http.get(f"{path}?anything={'x' * 100}").content == world.file(path).read_bytes()


def test_a_server_that_is_gone_is_a_problem_to_try_again_and_files_go_on(world, front, tmp_path):
    """A front of its own, before a port where nobody listens."""
    other = fronts.new_front(tmp_path / "other")
    if front is world.directory:
        kind, changes = "machine", fronts.machine_changes(other, free_port(), world.repository.tree, world.pem)
    else:
        kind, changes = "compose", fronts.compose_changes(other, free_port(), free_port(), "images", world.pem)
    with fronts.running(other, kind, changes), world.client(other) as http:
        answer = http.get("/api/v1/images")
        is_problem(answer, 502, "UnreachableError")
        assert answer.headers["retry-after"] == "5"
        if kind == "machine":
            assert http.get(world.block()).status_code == 200
        else:
            is_problem(http.get(world.block()), 502, "UnreachableError")


class TestKept:
    """What nginx keeps of a bucket."""

    @pytest.fixture
    def http(self, world, tmp_path):
        """A front that has kept nothing yet."""
        front = fronts.new_front(tmp_path / "front")
        changes = fronts.compose_changes(front, world.repository.port, world.store_port, "images", world.pem)
        with fronts.running(front, "compose", changes), world.client(front) as client:
            yield client

    @pytest.fixture
    def damaged(self, world):
        """A block whose file is wrong for a while; gives its path and its bytes, and puts them back."""
        path = world.block(7)
        file = world.file(path)
        right = file.read_bytes()
        file.write_bytes(b"poison" + right[6:])
        yield path, right, lambda: file.write_bytes(right)
        file.write_bytes(right)

    def test_a_poisoned_block_is_replaced_when_somebody_says_that_it_is_bad(self, http, damaged):
        path, right, mend = damaged
        digest = path.rpartition("/")[2].removesuffix(".zst")
        assert http.get(path).content[:6] == b"poison"
        mend()
        assert http.get(path).content[:6] == b"poison"
        for question in ("?bad=" + "0" * 64, "?bad=1", f"?x={digest}"):
            assert http.get(path + question).content[:6] == b"poison", question
        healed = http.get(f"{path}?bad={digest}")
        assert (healed.content, healed.headers["x-cache"]) == (right, "BYPASS")
        after = http.get(path)
        assert (after.content, after.headers["x-cache"]) == (right, "HIT")

    def test_who_asks_for_it_too_often_is_told_to_wait(self, world, http):
        path = world.block(3)
        digest = path.rpartition("/")[2].removesuffix(".zst")
        answers = [http.get(f"{path}?bad={digest}") for _ in range(60)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        is_problem(refused[0], 429, "TooManyRequestsError")
        assert refused[0].headers["retry-after"] == "5"
        assert http.get(path).status_code == 200  # what is not said to be bad is not rationed

    def test_what_was_read_once_outlives_the_store_and_the_timestamp_is_asked_for_each_time(self, world, tmp_path):
        other = fronts.new_front(tmp_path / "other")
        (tmp_path / "store" / "buckets").mkdir(parents=True)
        (tmp_path / "store" / "buckets" / "images").symlink_to(world.repository.tree)
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(s3_server(tmp_path / "store", anonymous=True))
            changes = fronts.compose_changes(other, world.repository.port, store.port, "images", world.pem)
            stack.enter_context(fronts.running(other, "compose", changes))
            http = stack.enter_context(world.client(other))
            path = world.block(5)
            (accelerator,) = [each for each in _accelerators(world) if not each.endswith(".json")][:1]
            assert [http.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
            assert http.get(path, headers={"Range": "bytes=0-9"}).headers["x-cache"] == "HIT"
            assert http.get(accelerator).status_code == 200
            stamps = [http.get("/metadata/timestamp.json") for _ in range(2)]
            assert [stamp.headers.get("x-cache", "") for stamp in stamps] == ["", ""]
            missing = "/blocks/sha256/00/" + "0" * 64 + ".zst"
            assert http.get(missing).status_code == 404
            end(store.process)
            assert http.get(path).content == world.file(path).read_bytes()
            assert http.get(accelerator).content == world.file(accelerator).read_bytes()
            is_problem(http.get("/metadata/timestamp.json"), 502, "UnreachableError")
            is_problem(http.get(missing), 502, "UnreachableError")  # that it was not there is not kept
