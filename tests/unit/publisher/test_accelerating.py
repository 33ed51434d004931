"""Profiles put beside versions: bundles of the right blocks in the right order, sent once, believed by nobody."""

import hashlib
import io
import random

import httpx
import pytest

from oscirc_blockstore import bundle, segment
from oscirc_blockstore.accelerators import BUNDLE, PROFILE
from oscirc_blockstore.bundle_making import built_bundle
from oscirc_blockstore.digests import ZERO_DIGEST, block_digest, digest_of
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, NotFoundError
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import NODE_SIZE, Geometry, TableBuilder
from oscirc_publisher.accelerating import VersionName, add_profile, has_profile, listed_profile
from oscirc_publisher.rest import Patience, RestClient

BLOCK = 65_536
NAME = VersionName("alice", "debian", "1")


class World:
    """A disk of 2,100 blocks: two leaves of the table; most are holes."""

    def __init__(self):
        chance = random.Random(5)
        self.blocks = {position: chance.randbytes(BLOCK) for position in (0, 1, 7, 900, 1030, 1500, 2099)}
        self.blocks[8] = self.blocks[7]
        geometry = Geometry(2100 * BLOCK - 512, BLOCK)
        self.store = {}
        builder = TableBuilder(geometry, self.store.__setitem__)
        for position, raw in sorted(self.blocks.items()):
            self.store[block_digest(raw)] = raw
            builder.add(position, block_digest(raw))
        self.manifest = Manifest("alice", "debian", geometry, builder.finish(), len(self.blocks), SystemFacts())
        self.digest = digest_of(self.manifest.serialise())

    def profile(self, *positions, name="boot"):
        return Profile(self.digest, name, 2, positions)

    def load(self, digest, raw_size, position):
        raw = self.store[digest]
        assert len(raw) == raw_size
        assert position == -1 if raw_size == NODE_SIZE else block_digest(self.blocks[position]) == digest
        return raw


@pytest.fixture
def world():
    return World()


def bundled(world, *positions, **how):
    with built_bundle(world.profile(*positions), world.manifest, world.load, level=1, workers=1, **how) as built:
        return built, built.file.read()


def unpacked(raw):
    """Every entry of a bundle with its bytes, in order, as a client decodes them."""
    index = bundle.parse_index(raw[: bundle.index_length(raw[: bundle.HEAD_SIZE])])
    found = []
    for part in index.segments:
        source = segment.SegmentSource(io.BytesIO(raw[part.offset :]), part.length)
        found += [(entry, bytes(content)) for entry, content in segment.decode(part, source)]
    return index, found


def test_nodes_come_first_then_blocks_in_first_touch_order_without_holes_or_repetition(world):
    built, raw = bundled(world, 1500, 3, 8, 0, 7, 2099)
    index, entries = unpacked(raw)
    wanted = [block_digest(world.blocks[position]) for position in (1500, 7, 0, 2099)]
    nodes = len(entries) - len(wanted)
    assert [each.digest for each, _ in entries[nodes:]] == wanted
    assert all(each.raw_size == NODE_SIZE for each, _ in entries[:nodes])
    assert all(digest_of(content) == each.digest for each, content in entries)
    assert nodes == 4  # the root, and the three leaves that these positions stand under
    assert (index.manifest, index.length, built.blocks) == (world.digest, len(raw), 4)
    assert built.accelerator.sha256 == digest_of(raw)
    assert built.accelerator.index_length == index.segments[0].offset
    bounds = bundle.bounds(world.manifest.geometry, world.manifest.data_blocks)
    assert len(raw) <= bounds.length
    assert len(entries) <= bounds.entries


def test_the_same_profile_gives_the_same_file_whatever_the_number_of_workers(world, monkeypatch):
    monkeypatch.setattr(bundle, "SEGMENT_BYTES", 2 * BLOCK)
    files = {}
    for workers in (1, 3):
        with built_bundle(
            world.profile(0, 1, 7, 900, 1030), world.manifest, world.load, level=1, workers=workers
        ) as built:
            files[workers] = built.file.read()
    assert files[1] == files[3]
    assert len(unpacked(files[1])[0].segments) >= 3


def test_progress_ends_at_the_whole(world):
    seen = []
    built, _ = bundled(world, 0, 1, 7, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (built.raw_bytes, built.raw_bytes)


@pytest.mark.parametrize("positions", [(), (3, 4), (2100,), (1 << 40,)])
def test_a_profile_of_nothing_or_beyond_the_disk_is_refused(world, positions):
    with pytest.raises(DocumentRefusedError):
        bundled(world, *positions)


def test_bytes_that_are_not_the_disks_go_into_no_bundle(world):
    world.store[block_digest(world.blocks[7])] = bytes(BLOCK)
    with pytest.raises(DigestMismatchError):
        bundled(world, 0, 7)


class Server:
    """The accelerators of one version."""

    def __init__(self):
        self.listed, self.files, self.released = [], {}, True

    def __call__(self, request):
        path = request.url.path.removeprefix("/r/")
        if path.startswith("accel/"):
            raw = self.files.get(path.removeprefix("accel/"))
            return httpx.Response(404) if raw is None else httpx.Response(200, stream=httpx.ByteStream(raw))
        rest = path.removeprefix("api/v1/images/alice/debian/versions/1/accelerators")
        if not self.released:
            return httpx.Response(404, json={"type": "NotFoundError", "detail": "no such version"},
                                  headers={"Content-Type": "application/problem+json"})  # fmt: skip
        if request.method == "PUT":
            _, kind, name = rest.split("/")
            raw = request.read()
            sha256 = hashlib.sha256(raw).hexdigest()
            assert request.url.params["sha256"] == sha256
            self.files[sha256] = raw
            self.listed = [each for each in self.listed if (each["kind"], each["name"]) != (kind, name)]
            self.listed.append({"kind": kind, "name": name, "sha256": sha256, "length": len(raw)})
            return httpx.Response(200, stream=httpx.ByteStream(b"{}"))
        assert (request.method, rest) == ("GET", "")
        return httpx.Response(
            200, stream=httpx.ByteStream(httpx.Response(200, json={"accelerators": self.listed}).content)
        )

    def kinds(self, name="boot"):
        return sorted(each["kind"] for each in self.listed if each["name"] == name)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def rest(server):
    def handle(request):
        answer = server(request)
        content = answer.content if answer.is_stream_consumed or answer.is_closed else answer.read()
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(content))

    with RestClient(
        "http://repository.test/r", token="t", patience=Patience(()), transport=httpx.MockTransport(handle)
    ) as client:
        yield client


def add(rest, world, recorded):
    return add_profile(rest, NAME, world.digest, world.manifest, recorded, world.load, level=1)


def test_a_profile_and_its_bundle_are_sent_once(rest, server, world):
    assert not has_profile(rest, NAME, "boot")
    assert add(rest, world, world.profile(7, 0)).uploaded
    assert server.kinds() == [BUNDLE, PROFILE]
    assert has_profile(rest, NAME, "boot")
    assert not add(rest, world, world.profile(7, 0)).uploaded
    assert add(rest, world, world.profile(0, 7)).uploaded  # another order is another bundle


def test_a_profile_of_another_version_is_taken_for_this_one(rest, server, world):
    add(rest, world, Profile(digest_of(b"older"), "boot", 3, (7, 0)))
    assert listed_profile(rest, NAME, world.digest, "boot") == Profile(world.digest, "boot", 3, (7, 0))


def test_a_version_that_is_not_released_has_none(rest, server):
    server.released = False
    assert not has_profile(rest, NAME, "boot")
    with pytest.raises(NotFoundError):
        listed_profile(rest, NAME, ZERO_DIGEST, "boot")


def test_half_of_it_is_not_there(rest, server, world):
    add(rest, world, world.profile(7, 0))
    server.listed = [each for each in server.listed if each["kind"] == PROFILE]
    assert not has_profile(rest, NAME, "boot")


def test_a_servers_profile_is_checked_before_it_is_used(rest, server, world):
    add(rest, world, world.profile(7, 0))
    entry = next(each for each in server.listed if each["kind"] == PROFILE)
    whole = server.files[entry["sha256"]]
    server.files[entry["sha256"]] = whole.replace(b"[7,0]", b"[7,1]")
    with pytest.raises(DigestMismatchError):
        listed_profile(rest, NAME, world.digest, "boot")
    for wrong in (world.profile(7, name="other"), Profile(digest_of(b"x"), "boot", 1, (7,))):
        entry["sha256"] = digest_of(wrong.serialise()).hex()
        server.files[entry["sha256"]] = wrong.serialise()
        with pytest.raises(DocumentRefusedError, match="another"):
            listed_profile(rest, NAME, world.digest, "boot")
    entry["sha256"] = "../../x"
    with pytest.raises(DocumentRefusedError):
        listed_profile(rest, NAME, world.digest, "boot")
    with pytest.raises(NotFoundError):
        listed_profile(rest, NAME, world.digest, "fleet-boot")
