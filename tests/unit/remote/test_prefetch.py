"""What a prefetcher chooses: bundle, profile, foresight or nothing, then the rest; over real HTTP, with a small disk."""

import contextlib
import random
import threading

import pytest
from support import ext4_images
from support.fault_server import FaultServer, flip_bit, stall, status
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore import accelerators, bundle, frame
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Hint, Listing
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import NODE_SIZE
from oscirc_remote import prefetch, references
from oscirc_remote.opening import listing_of, open_image, start_early
from oscirc_remote.prefetch import PrefetchOptions
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver
from oscirc_remote.table_view import TableView

DISK = random.Random(7).randbytes(40 * BLOCK_SIZE)
BOOT = list(range(5, 25))


def block(position):
    return DISK[position * BLOCK_SIZE : (position + 1) * BLOCK_SIZE]


class Site:
    """A repository with one image, its accelerators as a test wants them, and a server of it."""

    def __init__(self, disk=DISK):
        self.repository = RepositorySimulator()
        self.repository.publish("alice", "debian", "1", disk)
        (self.digest,) = self.repository.manifests
        self.manifest = self.repository.manifests[self.digest]
        self.files = self.repository.files
        self.listed = []

    def put(self, kind, name, raw, index_length=0):
        accelerator = Accelerator(kind, name, digest_of(raw), len(raw), index_length)
        self.files[accelerator.path] = raw
        self.listed.append(accelerator)
        listing = Listing(self.digest, tuple(self.listed))
        self.files[accelerators.listing_path(self.digest)] = listing.serialise()
        self.files[accelerators.hint_path("alice", "debian")] = Hint("alice", "debian", {"stable": listing}).serialise()
        return accelerator

    def put_profile(self, positions=BOOT, name="boot"):
        return self.put(PROFILE, name, Profile(self.digest, name, 1, tuple(positions)).serialise())

    def put_bundle(self, positions=BOOT, name="boot"):
        nodes = []

        def load(digest):
            nodes.append(digest)
            return frame.decode_verified(self.files[block_path(digest)], NODE_SIZE, digest)

        TableView(self.manifest.geometry, self.manifest.root).digest_at(0, load)
        contents = {digest: load(digest) for digest in list(nodes)}
        contents |= {digest_of(block(at)): block(at) for at in positions}
        group = tuple(Entry(digest, len(raw)) for digest, raw in contents.items())
        assert {entry.raw_size for entry in group} <= {NODE_SIZE, BLOCK_SIZE}
        segment = bundle.compress_segment(list(contents.values()), 1)
        raw = b"".join(bundle.build(self.digest, BLOCK_SIZE, [group], [segment]))
        return self.put(BUNDLE, name, raw, bundle.index_length(raw))


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def open_(site, tmp_path):
    with FaultServer(site.files) as server:
        remotes = Remotes(tmp_path / "remotes")
        remotes.add("home", site.repository.line(server.url))
        readers = []

        def begin(**options):
            early = options.pop("early", False)
            chosen = PrefetchOptions(**options)
            wanted = references.parse("alice/debian")
            started = start_early(wanted, chosen, remotes, tmp_path / "cache") if early else None
            if early:
                server.wait_until_asked("accel/hints/*")  # a thread's, which a busy machine may let run later
            resolved = Resolver(remotes).resolve(wanted)
            reader = open_image(resolved, tmp_path / "cache", prefetch=chosen, early=started)
            readers.append(reader)
            settled = threading.Event()
            reader.on_settled(settled.set)
            reader.settled = settled
            reader.resolved = resolved
            return reader

        begin.server = server
        yield begin
        for reader in readers:
            reader.close()


def here(reader):
    return {at for at in range(40) if reader.read_if_resident(at * BLOCK_SIZE, 16) is not None}


def wait_until_complete(reader):
    for _ in range(2000):
        if reader.status().safe_to_unplug:
            return
        threading.Event().wait(0.005)
    raise AssertionError(reader.status())


def test_a_bundle_is_streamed_and_blocks_come_by_it_alone(site, open_):
    site.put_bundle()
    reader = open_()
    assert reader.settled.wait(20)
    assert here(reader) == set(BOOT)
    assert open_.server.count("blocks/*") == 0
    status = reader.status()
    assert (status.prefetch.blocks, status.ready_to_boot) == (len(BOOT), True)
    assert status.profile_blocks == len(BOOT) + 1
    assert reader.read(0, len(DISK)) == DISK


def test_a_hint_starts_the_bundle_before_trust_was_checked(site, open_):
    site.put_bundle()
    reader = open_(early=True)
    assert reader.settled.wait(20)
    assert here(reader) == set(BOOT)
    paths = [request.path for request in open_.server.requests]
    hint = next(at for at, path in enumerate(paths) if path.startswith("accel/hints/"))
    assert hint < next(at for at, path in enumerate(paths) if path.startswith("manifests/"))


@pytest.mark.parametrize("wrong", ["another disk", "a bundle of a terabyte", "a bundle that is not there", "no hint"])
def test_a_wrong_hint_costs_a_request_or_two_and_nothing_else(site, open_, wrong):
    site.put_bundle()
    path = accelerators.hint_path("alice", "debian")
    listing = Listing(site.digest, tuple(site.listed))
    if wrong == "another disk":
        listing = Listing(digest_of(b"other"), tuple(site.listed))
    elif wrong == "a bundle of a terabyte":
        listing = Listing(site.digest, (Accelerator(BUNDLE, "boot", site.listed[0].sha256, 1 << 40, 100),))
    elif wrong == "a bundle that is not there":
        listing = Listing(site.digest, (Accelerator(BUNDLE, "boot", digest_of(b"none"), 1000, 100),))
    site.files[path] = Hint("alice", "debian", {"stable": listing}).serialise()
    if wrong == "no hint":
        del site.files[path]
    reader = open_(early=True)
    assert reader.settled.wait(30)
    assert here(reader) == set(BOOT)  # by the listing
    assert reader.read(0, len(DISK)) == DISK
    assert reader.status().received_bytes < 2 * len(DISK)


def test_a_profile_without_a_bundle_is_fetched_block_by_block(site, open_):
    site.put_profile()
    reader = open_()
    assert reader.settled.wait(20)
    assert here(reader) == set(BOOT)
    assert reader.status().prefetch.streamed_bytes < BLOCK_SIZE


def test_a_bundle_that_lies_is_replaced_by_the_profile(site, open_):
    site.put_bundle()
    site.put_profile()
    open_.server.inject(site.listed[0].path, flip_bit())
    reader = open_()
    assert reader.settled.wait(20)
    assert here(reader) >= set(BOOT)
    assert reader.status().prefetch.failures > 0


def test_another_profile_is_taken_where_it_is_named(site, open_):
    site.put_bundle()
    site.put_bundle([30, 31], "desktop")
    reader = open_(profile="desktop")
    assert reader.settled.wait(20)
    assert here(reader) == {30, 31}


def test_without_bundles_none_is_asked_for(site, open_):
    site.put_bundle()
    reader = open_(bundles=False, guesses=False)
    assert reader.settled.wait(20)
    assert open_.server.count("accel/*") == 0
    assert here(reader) == set()


def test_a_server_without_listings_is_no_trouble(site, open_):
    open_.server.inject("accel/*", status(500))
    reader = open_(guesses=False)
    assert reader.settled.wait(20)
    assert reader.read(0, len(DISK)) == DISK


@pytest.mark.parametrize(
    "answer", [status(500), flip_bit(0), stall(after_bytes=0)], ids=["500", "not a listing", "silence"]
)
def test_what_is_wrong_with_the_listing_ends_neither_guesses_nor_filling(site, open_, monkeypatch, answer):
    monkeypatch.setattr(prefetch, "LISTING_S", 0.3)
    site.put_bundle()
    open_.server.inject("accel/*", answer)
    reader = open_(fill_bytes_per_s=0.0)
    wait_until_complete(reader)
    assert reader.status().prefetch.last_problem


def test_a_mirror_with_a_wrong_listing_or_none_leaves_it_to_the_next(site, tmp_path):
    site.put_bundle()
    with FaultServer(site.files) as bad, FaultServer(site.files) as good:
        for fault in (status(404), status(500), flip_bit(0)):
            bad.inject("accel/*.json", fault)
            directory = tmp_path / str(id(fault))
            remotes = Remotes(directory)
            remotes.add("home", site.repository.line(bad.url))
            remotes.set_mirrors("home", (good.url,))
            resolved = Resolver(remotes).resolve("alice/debian")
            assert listing_of(resolved, directory / "cache").find(BUNDLE, "boot") == site.listed[0]
            with contextlib.closing(open_image(resolved, directory / "cache", prefetch=PrefetchOptions())) as reader:
                settled = threading.Event()
                reader.on_settled(settled.set)
                assert settled.wait(20)
                assert here(reader) == set(BOOT)


def test_the_rest_is_filled_where_it_is_wished(site, open_):
    site.put_bundle()
    reader = open_(fill_bytes_per_s=0.0)
    wait_until_complete(reader)
    assert here(reader) == set(range(40))


def test_the_listing_is_asked_for_and_remembered(site, open_, tmp_path):
    site.put_bundle()
    reader = open_()
    assert reader.settled.wait(20)
    assert listing_of(reader.resolved, tmp_path / "cache").find(BUNDLE, "boot") == site.listed[0]
    open_.server.close()
    assert listing_of(reader.resolved, tmp_path / "cache").find(BUNDLE, "boot") == site.listed[0]


def test_foresight_begins_with_the_reads_and_not_before(open_, tmp_path):
    files = {"usr/lib/systemd/systemd": random.Random(8).randbytes(600_000)}
    image = ext4_images.make(tmp_path / "disk", files)
    site = Site(image.read_bytes())
    with FaultServer(site.files) as server:
        remotes = Remotes(tmp_path / "others")
        remotes.add("home", site.repository.line(server.url))
        reader = open_image(
            Resolver(remotes).resolve("alice/debian"),
            tmp_path / "cache",
            prefetch=PrefetchOptions(fill_bytes_per_s=None),
        )
        settled = threading.Event()
        reader.on_settled(settled.set)
        assert not settled.wait(0.2)
        for at in range(4):
            reader.read(at * 4 * BLOCK_SIZE, 4096)
        assert settled.wait(20)
        reader.close()
