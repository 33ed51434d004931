"""Readers are sent to the bucket for what never changes, and for nothing else."""

from dataclasses import replace

import httpx
import pytest
from support.places import POSTGRESQL

from oscirc_blockstore.digests import block_path
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.manifest import manifest_path
from oscirc_remote.deadlines import Deadline
from oscirc_remote.http_client import HttpClient
from oscirc_server.app import create_app
from oscirc_server.direct_reads import DirectReads
from oscirc_server.object_storage import ObjectStorage
from oscirc_server.storage import DirectoryStorage

from .in_process import client_of
from .server_world import Api, block

CDN = "https://cdn.example/images"


@pytest.fixture
def reader(installation, world, alice, request):
    """A client of a server with direct reads, and a disk that alice has released there."""
    installation.settings = replace(installation.settings, direct_reads=request.param)
    with client_of(create_app(installation)) as client:
        disk = alice.build("debian", [block("a"), block("b")])
        assert Api(client, world.made.admin_token).publish(alice, "debian", "1.0", disk).status_code == 200
        yield client, disk


@pytest.mark.parametrize("reader", [CDN], indirect=True)
def test_blocks_manifests_and_accelerators_are_read_elsewhere(reader):
    client, disk = reader
    for path in (block_path(disk.blocks[0].digest), manifest_path(disk.digest), f"accel/{64 * 'a'}"):
        answer = client.get(f"/{path}", headers={"Range": "bytes=0-3"})
        assert (answer.status_code, answer.headers["location"]) == (307, f"{CDN}/{path}")
        assert answer.content == b""


@pytest.mark.parametrize("reader", [CDN], indirect=True)
def test_what_changes_or_is_signed_is_read_here(reader):
    client, disk = reader
    paths = ("metadata/timestamp.json", "metadata/1.root.json", f"accel/{disk.digest.hex()}.json")
    for path in (*paths, "accel/hints/alice/debian.json"):
        assert client.get(f"/{path}").status_code == 200
    assert client.get("/blocks/../secret").status_code == 404


@pytest.mark.parametrize("reader", [CDN], indirect=True)
def test_who_suspects_a_cache_or_asks_for_the_head_is_answered_here(reader):
    client, disk = reader
    path = block_path(disk.blocks[0].digest)
    assert client.get(f"/{path}?bad={disk.blocks[0].digest.hex()}").content == disk.blocks[0].frame
    assert client.head(f"/{path}").status_code == 200


@pytest.mark.parametrize("new_place", [POSTGRESQL], indirect=True)
@pytest.mark.parametrize("reader", ["signed"], indirect=True)
def test_a_signed_address_gives_that_file_alone(reader, world):
    client, disk = reader
    answer = client.get(f"/{block_path(disk.blocks[0].digest)}")
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    where = answer.headers["location"]
    assert where.startswith(world.place.server.endpoint)
    assert httpx.get(where).content == disk.blocks[0].frame
    assert httpx.get(where, headers={"Range": "bytes=1-4"}).content == disk.blocks[0].frame[1:5]
    first, other = (item.digest for item in disk.blocks)
    assert httpx.get(where.replace(block_path(first), block_path(other))).status_code == 403


@pytest.mark.parametrize("text", ["ftp://x", "nonsense", "https://user@host/x", ""])
def test_what_is_no_address_is_a_usage_error(tmp_path, text):
    with pytest.raises(UsageError):
        DirectReads.parse(DirectoryStorage(tmp_path / "tree", tmp_path / "tmp"), text)


def test_a_store_that_signs_nothing_is_told(tmp_path):
    for storage in (DirectoryStorage(tmp_path / "tree", tmp_path / "tmp"), ObjectStorage.open("memory:///")):
        assert DirectReads.parse(storage, None) is None
        with pytest.raises(UsageError, match="signs no URLs"):
            DirectReads.parse(storage, "signed")


@pytest.mark.parametrize("new_place", [POSTGRESQL], indirect=True)
def test_the_client_follows_to_a_signed_address(installation, world, s3):
    """The client's own HTTP, told by a redirect of a real server's form, against the real bucket."""
    installation.storage.replace("accel/x", b"0123456789")
    where = installation.storage.signed_url("accel/x", 60)
    client = HttpClient(s3.endpoint)
    try:
        path = where.removeprefix(f"{s3.endpoint}/")
        assert client.get(path, 100, Deadline.after(30)) == b"0123456789"
    finally:
        client.close()
