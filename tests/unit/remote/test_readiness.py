import pytest

from oscirc_blockstore import accelerators, bundle
from oscirc_blockstore.accelerators import BUNDLE, Accelerator, Listing
from oscirc_blockstore.bundle import Entry
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.local_store import LocalStore
from oscirc_blockstore.table import NODE_SIZE
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
    assert readiness.profile_digests(directory, other.manifest, "boot") == ()
    index = next((directory / "accel").glob("*.index"))
    entries = (Entry(digest_of(b"x"), BLOCK_SIZE),)
    index.write_bytes(bundle.build_index(other.manifest, BLOCK_SIZE, [entries], [10]))
    assert look(world).profile.total == 0
