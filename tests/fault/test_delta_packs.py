"""Updates by delta packs, as a mirror sees them: a fraction of what changed, and never a wrong byte, whatever it serves."""

import random
import shutil
from pathlib import Path

import pytest
from support.commands import Workstation, add_publisher, initialise, serving
from support.fault_server import FaultServer, flip_bit, flip_each, replace, status

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.profile import Profile

from .conftest import BLOCK, content

BLOCKS = 64
BOOT = tuple(range(0, BLOCKS, 2))
CHANGED = tuple(range(4, 44))
OLD = content("old", BLOCKS)


def edited(disk: bytes) -> bytes:
    """Some bytes in each of the changed blocks are others, and what follows them has moved a little."""
    blocks = [disk[at * BLOCK : (at + 1) * BLOCK] for at in range(BLOCKS)]
    for at in CHANGED:
        cut = 1000 + 900 * at
        blocks[at] = (blocks[at][:cut] + b"an edit of block %d" % at + blocks[at][cut:])[:BLOCK]
    return b"".join(blocks)


NEW = edited(OLD)


class Updated:
    """`alice/up` in two versions of 64 blocks, 40 of which changed; the second has a delta pack, and a boot's bundle."""

    def __init__(self, base: Path) -> None:
        publisher = Workstation(base / "publisher")
        self.repository = initialise(publisher, base / "repository")
        (base / "boot.json").write_bytes(Profile(digest_of(b"any"), "boot", 1, BOOT).serialise())
        with serving(publisher, self.repository):
            add_publisher(publisher, self.repository, "alice")
            for version, disk in (("1", OLD), ("2", NEW)):
                (base / "disk.raw").write_bytes(disk)
                options = ("--key", "alice", "--block-size", BLOCK, "--profile", base / "boot.json")
                self.told = publisher.json("publish", base / "disk.raw", f"test:alice/up@{version}", *options)
            self.listed = publisher.json("delta", "list", "test:alice/up@2")["packs"]

    @property
    def pin(self) -> str:
        return self.repository.url.partition("#")[2]

    @property
    def pack(self) -> str:
        """Its path below the repository's URL."""
        files = [file for file in (self.repository.tree / "accel").iterdir() if file.is_file()]
        (pack,) = (file for file in files if file.read_bytes().startswith(b"OSCDLTA1"))
        return f"accel/{pack.name}"


@pytest.fixture(scope="module")
def updated(tmp_path_factory):
    return Updated(tmp_path_factory.mktemp("updated"))


@pytest.fixture
def mirror(updated):
    with FaultServer(updated.repository.tree) as server:
        yield server


@pytest.fixture
def reader(reader, mirror, updated):
    reader.run("remote", "add", "m", f"{mirror.url}#{updated.pin}")
    return reader


@pytest.fixture(scope="module")
def kept(updated, tmp_path_factory):
    """The cache of a workstation that has all of the old version."""
    station = Workstation(tmp_path_factory.mktemp("kept"))
    with FaultServer(updated.repository.tree) as server:
        station.run("remote", "add", "m", f"{server.url}#{updated.pin}")
        station.run("pull", "m:alice/up@1")
    return station.home / "cache"


@pytest.fixture
def holder(reader, kept):
    """A workstation with all of the old version."""
    shutil.copytree(kept, reader.home / "cache", dirs_exist_ok=True)
    return reader


def mounted(reader, place, *options):
    place.mkdir()
    reader.run("mount", "m:alice/up@2", place, *options)
    return place / "disk.raw"


def judged(holder, place, is_judged):
    """The facts of a mount once they are so; the test's limit bounds it."""
    while not is_judged(facts := holder.json("status", place)):
        pass
    return facts


def read_in_disorder(disk):
    order = list(range(BLOCKS))
    random.Random(3).shuffle(order)
    with disk.open("rb", buffering=0) as file:
        for at in order:
            file.seek(at * BLOCK)
            assert file.read(BLOCK) == NEW[at * BLOCK : (at + 1) * BLOCK]


def test_publishing_makes_a_pack_from_the_version_before(updated):
    (made,) = updated.told["deltas"]
    assert (made["base"], made["made"], made["records"]) == ("1", True, len(CHANGED))
    assert made["pack_bytes"] < made["whole_bytes"] / 50
    assert [(each["base"], each["pack_bytes"]) for each in updated.listed] == [("1", made["pack_bytes"])]


def test_who_has_the_old_version_pulls_the_new_one_for_a_fraction(updated, mirror, holder):
    told = holder.json("pull", "m:alice/up@2")
    assert told["packs"]["rebuilt_blocks"] == len(CHANGED)
    assert told["fetched_bytes"] < len(CHANGED) * BLOCK / 40
    assert mirror.count("blocks/*") == 0  # not even a node
    assert mirror.count(updated.pack) == 2  # its index, and all records at once, whichever thread is the first
    assert holder.json("status", "m:alice/up@2")["safe_to_unplug"]


def test_a_lazy_mount_of_the_new_version_takes_records_too(updated, mirror, holder, tmp_path):
    disk = mounted(holder, tmp_path / "mnt")
    judged(holder, tmp_path / "mnt", lambda facts: facts["packs"]["packs"])
    read_in_disorder(disk)
    facts = holder.json("status", tmp_path / "mnt")
    assert facts["packs"]["packs"] == 1
    assert facts["packs"]["rebuilt_blocks"] >= len(CHANGED) - 4  # what was read before the pack was here
    assert facts["fetched_bytes"] < 6 * BLOCK
    assert mirror.count("blocks/*") <= 4


def test_a_mount_that_fetches_nothing_ahead_takes_them_as_well(updated, mirror, holder, tmp_path):
    disk = mounted(holder, tmp_path / "mnt", "--profile", "none")
    judged(holder, tmp_path / "mnt", lambda facts: facts["packs"]["packs"])
    read_in_disorder(disk)
    assert holder.json("status", tmp_path / "mnt")["packs"]["rebuilt_blocks"] >= len(CHANGED) - 4


def test_without_anything_fetched_ahead_the_packs_are_found_all_the_same(updated, mirror, holder, tmp_path):
    disk = mounted(holder, tmp_path / "mnt", "--no-prefetch")
    mirror.wait_until_asked(updated.pack)
    judged(holder, tmp_path / "mnt", lambda facts: facts["packs"]["packs"])
    read_in_disorder(disk)
    assert holder.json("status", tmp_path / "mnt")["packs"]["rebuilt_blocks"] == len(CHANGED)
    assert mirror.count("blocks/*") == 0


def test_after_a_mere_boot_each_block_comes_in_the_cheaper_way(updated, mirror, reader, tmp_path):
    reader.run("pull", "m:alice/up@1", "--profile-only")
    mirror.forget()
    told = reader.json("pull", "m:alice/up@2", "--profile-only")
    touched = [at for at in BOOT if at in CHANGED]
    assert told["fetched_bytes"] < 3 * BLOCK  # the bundle has 32 blocks
    assert told["fetched_blocks"] == len(touched)
    assert mirror.count("blocks/*") == 0


def test_who_has_nothing_old_asks_for_no_pack(updated, mirror, reader):
    reader.run("pull", "m:alice/up@2")
    assert mirror.count(updated.pack) == 0
    assert mirror.count("blocks/*") == BLOCKS + 1


@pytest.mark.parametrize(
    "fault",
    [flip_bit(0), flip_bit(20), flip_bit(200), flip_each(), replace(b"rubbish")],
    ids=["head", "version", "index", "every byte", "rubbish"],
)
def test_a_pack_whose_head_or_index_is_wrong_is_counted_and_its_blocks_are_fetched_whole(
    updated, mirror, holder, tmp_path, fault
):
    mirror.inject(updated.pack, fault)
    disk = mounted(holder, tmp_path / "mnt", "--no-prefetch")
    judged(holder, tmp_path / "mnt", lambda facts: facts["packs"]["refused_packs"])
    read_in_disorder(disk)
    packs = holder.json("status", tmp_path / "mnt")["packs"]
    assert (packs["packs"], packs["rebuilt_blocks"], packs["refused_packs"]) == (0, 0, 1)
    assert mirror.count("blocks/*") >= len(CHANGED)
    assert "a pack was WRONG" in holder.run("status", tmp_path / "mnt")


def test_a_pack_that_is_not_served_is_no_wrong_one(updated, mirror, holder, tmp_path):
    mirror.inject(updated.pack, status(404))
    disk = mounted(holder, tmp_path / "mnt", "--no-prefetch")
    mirror.wait_until_asked(updated.pack)
    read_in_disorder(disk)
    packs = holder.json("status", tmp_path / "mnt")["packs"]
    assert (packs["packs"], packs["rebuilt_blocks"], packs["refused_packs"]) == (0, 0, 0)
    assert mirror.count("blocks/*") >= len(CHANGED)


def test_records_that_are_wrong_are_counted_and_their_blocks_fetched_whole(updated, mirror, holder, tmp_path):
    holder.run("mount", "m:alice/up@2", _made(tmp_path / "one"))  # keeps the index
    judged(holder, tmp_path / "one", lambda facts: facts["packs"]["packs"])
    holder.run("umount", tmp_path / "one")
    mirror.forget()
    mirror.inject(updated.pack, flip_bit(-1))
    read_in_disorder(mounted(holder, tmp_path / "mnt", "--no-prefetch", "--fill"))
    facts = holder.json("status", tmp_path / "mnt")
    assert facts["packs"]["refused_records"] >= 1
    assert mirror.count("blocks/*") >= 1
    assert "WRONG" in holder.run("status", tmp_path / "mnt")


def test_of_two_mirrors_the_one_that_serves_wrong_records_is_found_out(updated, mirror, holder):
    """All that a pull needs still comes from the pack: from the other."""
    holder.run("pull", "m:alice/up@2", "--profile-only")  # keeps the index, and leaves records to be fetched
    mirror.inject(updated.pack, flip_each())
    with FaultServer(updated.repository.tree) as second:
        holder.run("remote", "mirrors", "m", "--add", second.url)
        told = holder.json("pull", "m:alice/up@2")
        assert second.count(updated.pack) >= 1
        assert second.count("blocks/*") == 0
    assert told["packs"]["refused_records"] >= 1
    assert told["packs"]["rebuilt_blocks"] == len([at for at in CHANGED if at not in BOOT])
    assert mirror.count("blocks/*") == 0


def _made(place):
    place.mkdir()
    return place
