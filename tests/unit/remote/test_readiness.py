import os

import pytest

from oscirc_blockstore import accelerators, bundle
from oscirc_blockstore.accelerators import BUNDLE, PROFILE, Accelerator, Listing
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.profile import Profile
from oscirc_blockstore.table import FANOUT, NODE_SIZE, Geometry, TableRoot
from oscirc_remote import readiness
from oscirc_remote.cache_layout import STORE_DIRECTORY

from .fakes import BLOCK_SIZE, block, make_image


@pytest.fixture
def world(tmp_path):
    made, stored = make_image({at: block(at + 1) for at in range(4)}, 4 * BLOCK_SIZE)
    store = LocalStore(tmp_path / STORE_DIRECTORY)
    digest = digest_of(made.serialise())
    return tmp_path, digest, made, stored, store


def know_profile(directory, digest, made, stored, positions):
    """Keep a listing and a bundle's index as a prefetcher does."""
    nodes = [Entry(name, NODE_SIZE) for name, raw in stored.items() if len(raw) == NODE_SIZE]
    entries = tuple(nodes + [Entry(digest_of(block(at + 1)), BLOCK_SIZE) for at in positions])
    raw = bundle.build_index(digest, BLOCK_SIZE, [entries], [1000])
    sha256 = digest_of(b"the bundle")
    listing = Listing(digest, (Accelerator(BUNDLE, "boot", sha256, len(raw) + 1000, len(raw)),))
    readiness.keep_listing(directory, listing.serialise(), digest)
    readiness.index_file(directory, sha256).write_bytes(raw)
    return entries


def look(world):
    directory, digest, made, _, _ = world
    return readiness.look(directory, digest, made, "boot")


def test_an_empty_cache_is_ready_for_nothing(world):
    found = look(world)
    assert (found.blocks, found.blocks_here, found.is_complete, found.is_ready_to_boot) == (4, 0, False, False)


def test_with_the_profile_s_blocks_and_nodes_it_is_ready_to_boot(world):
    directory, digest, made, stored, store = world
    entries = know_profile(directory, digest, made, stored, [0, 2])
    for entry in entries[:-1]:
        store.save(entry.digest, stored[entry.digest])
    assert look(world).profile == readiness.ProfileShare(3, 2)
    assert not look(world).is_ready_to_boot
    store.save(entries[-1].digest, stored[entries[-1].digest])
    found = look(world)
    assert (found.is_ready_to_boot, found.is_complete, found.blocks_here) == (True, False, 2)


def test_with_all_blocks_it_is_complete_whether_a_profile_is_known_or_not(world):
    *_, stored, store = world
    for name, raw in stored.items():
        store.save(name, raw)
    found = look(world)
    assert (found.is_complete, found.is_ready_to_boot, found.profile.total) == (True, True, 0)


def know_positions(directory, digest, positions, *, of=None):
    """Keep a listing and a profile as a prefetcher does where there is no bundle."""
    raw = Profile(of or digest, "boot", 1, tuple(positions)).serialise()
    listing = Listing(digest, (Accelerator(PROFILE, "boot", digest_of(raw), len(raw)),))
    readiness.keep_listing(directory, listing.serialise(), digest)
    readiness.keep_profile(directory, raw, digest_of(raw))


def test_a_profile_without_a_bundle_is_looked_up_in_the_table(world):
    directory, digest, made, stored, store = world
    know_positions(directory, digest, [3, 1, 99_999])
    assert look(world).profile == readiness.ProfileShare(2, 0)
    for at in (1, 3):
        store.save(digest_of(block(at + 1)), block(at + 1))
    assert not look(world).is_ready_to_boot  # the table says where they are, and is not here
    store.save(made.root.digest, stored[made.root.digest])
    found = look(world)
    assert (found.profile, found.is_ready_to_boot, found.is_complete) == (readiness.ProfileShare(2, 2), True, False)


def test_the_profile_of_another_image_counts_as_none(world):
    directory, digest, *_ = world
    know_positions(directory, digest, [1], of=digest_of(b"another"))
    assert look(world).profile.total == 0


def test_to_look_is_not_to_use(world):
    directory, digest, _, stored, store = world
    know_positions(directory, digest, [0])
    for name, raw in stored.items():
        store.save(name, raw)
        os.utime(store.path(name), (1, 1))
    assert look(world).is_complete
    assert {store.path(name).stat().st_mtime for name in stored} == {1}


def test_a_disk_whose_nodes_repeat_is_counted_in_no_time(tmp_path):
    """Three levels, sixteen terabytes, of one and the same node each: it would take minutes otherwise."""
    leaf = digest_of(block(1)) * FANOUT
    middle = digest_of(leaf) * FANOUT
    top = (digest_of(middle) * 256).ljust(NODE_SIZE, b"\0")
    store = LocalStore(tmp_path / STORE_DIRECTORY)
    for raw in (leaf, middle, top):
        store.save(digest_of(raw), raw)
    positions = 256 * FANOUT * FANOUT
    geometry = Geometry(positions * BLOCK_SIZE, BLOCK_SIZE)
    made = Manifest("alice", "debian", geometry, TableRoot(digest_of(top), 3), positions, SystemFacts())
    assert readiness.look(tmp_path, digest_of(made.serialise()), made, "boot").blocks_here == 0
    store.save(digest_of(block(1)), block(1))
    found = readiness.look(tmp_path, digest_of(made.serialise()), made, "boot")
    assert (found.blocks_here, found.is_complete) == (positions, True)


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\x00" * 200])
def test_damaged_hints_count_as_none(world, damage):
    directory, digest, made, stored, _ = world
    know_profile(directory, digest, made, stored, [0])
    for file in (directory / "accel").iterdir():
        file.write_bytes(damage)
    assert look(world).profile.total == 0


def test_the_index_of_another_image_counts_as_none(world):
    directory, digest, made, stored, _ = world
    know_profile(directory, digest, made, stored, [0])
    other = accelerators.Listing(digest_of(b"other"), ())
    assert readiness.bundle_digests(directory, other.manifest, "boot") == ()
    index = next((directory / "accel").glob("*.index"))
    entries = (Entry(digest_of(b"x"), BLOCK_SIZE),)
    index.write_bytes(bundle.build_index(other.manifest, BLOCK_SIZE, [entries], [10]))
    assert look(world).profile.total == 0
