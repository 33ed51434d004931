"""The static tree: headers, ranges, and nothing from outside it."""

import os

import httpx
import pytest

from oscirc_server.object_storage import ObjectStorage
from oscirc_server.static import PIECE_BYTES, StaticTree, Window, window_of
from oscirc_server.storage import DirectoryStorage

from .in_process import client_of
from .server_world import block

IMMUTABLE = "public, max-age=31536000, immutable"


class Alone:
    """The tree without the rest of the application."""

    def __init__(self, storage):
        self.tree = StaticTree(storage)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})
        else:
            await self.tree(scope, receive, send)


@pytest.fixture(params=["directory", "object store"])
def storage(request, tmp_path):
    if request.param == "directory":
        return DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    return ObjectStorage.open("memory:///")


@pytest.fixture
def web(storage):
    with client_of(Alone(storage)) as client:
        yield client


DIGEST = "ab" * 32
FRAME = f"blocks/sha256/ab/{DIGEST}.zst"
BODY = bytes(range(256)) * 8


@pytest.mark.parametrize(
    ("path", "kind", "cache"),
    [
        (FRAME, "application/zstd", IMMUTABLE),
        ("metadata/timestamp.json", "application/json", "no-cache"),
        ("metadata/1.root.json", "application/json", IMMUTABLE),
        ("metadata/7.alice.json", "application/json", IMMUTABLE),
        (f"roots/{DIGEST}.json", "application/json", IMMUTABLE),
        (f"manifests/{DIGEST}.json", "application/json", IMMUTABLE),
        (f"targets/alice/{DIGEST}.debian.json", "application/json", IMMUTABLE),
        (f"accel/{DIGEST}.json", "application/json", "no-cache"),
        (f"accel/{DIGEST}", "application/octet-stream", IMMUTABLE),
    ],
)
def test_each_kind_of_file_has_its_headers(storage, web, path, kind, cache):
    storage.replace(path, BODY)
    answer = web.get(f"/{path}")
    assert (answer.status_code, answer.content) == (200, BODY)
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (kind, cache)
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in answer.headers
    head = web.head(f"/{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "content-length": str(len(BODY))} == dict(answer.headers)


def test_an_etag_saves_the_body(storage, web):
    storage.replace(FRAME, BODY)
    etag = web.get(f"/{FRAME}").headers["etag"]
    answer = web.get(f"/{FRAME}", headers={"If-None-Match": f'"x", {etag}'})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert web.get(f"/{FRAME}", headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=10-", 10, 2048), ("bytes=-5", 2043, 2048), ("bytes=2000-9999", 2000, 2048)],
)
def test_a_range_gives_a_part(storage, web, asked, start, stop):
    storage.replace(FRAME, BODY)
    answer = web.get(f"/{FRAME}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, BODY[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/2048"
    assert answer.headers["cache-control"] == IMMUTABLE


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_past_the_end_is_refused(storage, web, asked):
    storage.replace(FRAME, BODY)
    answer = web.get(f"/{FRAME}", headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2048")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=a-b", "chunks=0-1", "bytes=0-1,4-5", "bytes=", "bytes=-"])
def test_a_range_that_is_not_understood_gives_the_whole(storage, web, asked):
    storage.replace(FRAME, BODY)
    answer = web.get(f"/{FRAME}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, BODY)


def test_a_range_of_another_file_than_the_reader_began_with_gives_the_whole(storage, web):
    storage.replace(FRAME, BODY)
    etag = web.get(f"/{FRAME}").headers["etag"]
    part = web.get(f"/{FRAME}", headers={"Range": "bytes=0-0", "If-Range": etag})
    whole = web.get(f"/{FRAME}", headers={"Range": "bytes=0-0", "If-Range": '"old"'})
    assert (part.status_code, whole.status_code) == (206, 200)


def test_a_long_file_arrives_whole(storage, web):
    content = block("long", 3 * PIECE_BYTES + 128)
    storage.replace(f"accel/{DIGEST}", content)
    assert web.get(f"/accel/{DIGEST}").content == content
    assert web.get(f"/accel/{DIGEST}", headers={"Range": "bytes=7-"}).content == content[7:]


def test_an_empty_file_is_served(storage, web):
    storage.replace(f"accel/{DIGEST}", b"")
    answer = web.get(f"/accel/{DIGEST}")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/metadata/../../secret",
        "/blocks/%2e%2e/%2e%2e/secret",
        "/blocks/..%2f..%2fsecret",
        "/metadata//etc/passwd",
        "/metadata/",
        "/metadata",
        "/blocks/sha256/ab",
        "/metadata/.hidden",
        "/metadata/%00",
        "/metadata/a%0ab",
        "/metadata/A.json",
        "/metadata/9.root.json",
        "/accel/" + "a" * 300,
    ],
)
def test_nothing_else_is_served(storage, web, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    storage.replace(FRAME, BODY)
    answer = web.send(httpx.Request("GET", httpx.URL("http://repository.test", raw_path=path.encode())))
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_only_reading_is_allowed(web):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = web.request(method, f"/{FRAME}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_links_and_devices_in_the_tree_are_not_followed(tmp_path):
    storage = DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "tree/metadata").mkdir()
    (tmp_path / "tree/metadata/1.root.json").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "tree/metadata/2.root.json")
    with client_of(Alone(storage)) as web:
        for name in ("1.root.json", "2.root.json"):
            assert web.get(f"/metadata/{name}").status_code == 404


def test_windows_of_ranges():
    assert window_of(None, 10) == Window(0, 10)
    assert window_of("bytes=0-", 0) is None
    assert window_of("bytes=-3", 2) == Window(0, 2)
    assert window_of("bytes=9-9", 10) == Window(9, 10)
