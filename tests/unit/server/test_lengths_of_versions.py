"""Block lengths on the server: made once, after the release or at the start; nobody else puts or removes them."""

import asyncio
import hashlib
import threading

import pytest

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import lengths as files
from oscirc_blockstore.accelerators import LENGTHS
from oscirc_blockstore.digests import block_path
from oscirc_server import resigning
from oscirc_server.models import AcceleratorRow
from oscirc_server.reconciling import reconcile
from oscirc_server.resigning import keep_up
from oscirc_server.services import lengths

from .server_world import block

VERSION = "images/alice/debian/versions/1.0"


@pytest.fixture
def disk(api, alice):
    built = alice.build("debian", [block("a"), None, block("b"), block("a")])
    assert api.publish(alice, "debian", "1.0", built).status_code == 200
    return built


def listed(world, disk):
    path = world.tree / documents.listing_path(disk.digest)
    return documents.parse_listing(path.read_bytes()).find(LENGTHS, files.NAME) if path.exists() else None


def forget(installation, disk):
    with installation.database.write() as session:
        session.delete(session.get(AcceleratorRow, (disk.digest, LENGTHS, files.NAME)))


def test_a_release_is_followed_by_the_lengths_of_what_is_stored(world, disk, http):
    found = listed(world, disk)
    raw = http.get(f"/{found.path}").content
    assert (len(raw), hashlib.sha256(raw).digest()) == (found.length, found.sha256)
    parsed = files.parse(raw, disk.manifest.geometry)
    assert parsed.manifest == disk.digest
    (leaf,) = disk.nodes
    assert list(parsed.nodes[0]) == [(world.tree / block_path(leaf.digest)).stat().st_size]
    node = b"".join(bytes(32) if record is None else record for record in leaf_digests(disk))
    of_leaf = parsed.of_leaf(0, node + bytes(32768 - len(node)))
    stored = {record.digest: (world.tree / block_path(record.digest)).stat().st_size for record in disk.blocks}
    assert of_leaf == stored


def leaf_digests(disk):
    first, second = (record.digest for record in disk.blocks)
    return [first, None, second, first]


def test_they_are_hinted_at_like_the_rest(world, disk):
    raw = (world.tree / documents.hint_path("alice", "debian")).read_bytes()
    assert documents.parse_hint(raw).channels["stable"].find(LENGTHS, files.NAME) == listed(world, disk)


def test_nobody_else_puts_or_removes_them(api, disk, world):
    raw = b"anything"
    sha256 = hashlib.sha256(raw).hexdigest()
    answer = api.call("PUT", f"{VERSION}/accelerators/lengths/blocks", params={"sha256": sha256}, content=raw)
    assert answer.status_code == 400
    assert "own" in answer.json()["detail"]
    assert api.call("DELETE", f"{VERSION}/accelerators/lengths/blocks").status_code == 400
    assert listed(world, disk) is not None


def test_they_are_made_once(installation, disk, world):
    before = listed(world, disk)
    path = world.tree / before.path
    path.write_bytes(b"x")  # if they were made again this would be replaced
    assert lengths.make(installation, disk.digest)
    assert path.read_bytes() == b"x"


def test_what_is_missing_is_made_by_the_next_start(world, installation, disk, monkeypatch):
    """As after an update from a server that made none: the file is gone with the row, then both are back."""
    before = listed(world, disk)
    forget(installation, disk)
    reconcile(installation)
    assert not (world.tree / before.path).exists()

    made, make_missing = threading.Event(), lengths.make_missing

    def made_missing(*arguments, **options):
        make_missing(*arguments, **options)
        made.set()

    async def start():
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        monkeypatch.setattr(lengths, "make_missing", made_missing)
        monkeypatch.setattr(resigning, "upkeep", lambda *_: made.wait(30) and loop.call_soon_threadsafe(stop.set))
        await keep_up(installation, stop)

    asyncio.run(asyncio.wait_for(start(), 30))
    assert listed(world, disk) == before


def test_a_start_that_is_to_end_makes_no_more(installation, disk):
    forget(installation, disk)
    assert lengths.make_missing(installation, stopped=lambda: True) == 0
    assert lengths.make_missing(installation) == 1
    assert lengths.make_missing(installation) == 0


def test_a_node_that_is_lost_on_the_server_is_logged_and_the_others_are_made(world, installation, api, alice, disk):
    other = alice.build("other", [block("c")])
    assert api.publish(alice, "other", "1", other).status_code == 200
    for each in (disk, other):
        forget(installation, each)
    (world.tree / block_path(disk.nodes[0].digest)).unlink()
    assert lengths.make_missing(installation) == 1
    assert listed(world, other) is not None
    with installation.database.read() as session:
        assert session.get(AcceleratorRow, (disk.digest, LENGTHS, files.NAME)) is None


def test_a_disk_of_zeros_has_an_empty_file(world, api, alice):
    empty = alice.build("empty", [None, None])
    assert api.publish(alice, "empty", "1", empty).status_code == 200
    assert (
        list(files.parse((world.tree / listed(world, empty).path).read_bytes(), empty.manifest.geometry).blocks) == []
    )
