"""Which packs a workstation uses: those that start from what it has, as they were listed, fetched once."""

import pytest

from oscirc_blockstore import delta
from oscirc_blockstore.accelerators import BUNDLE, DELTA, Accelerator, Listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import NotServedError
from oscirc_remote.pack_source import MOST_REFUSED
from oscirc_remote.packs import INDEX_BYTES, INDEX_BYTES_OF_AN_ENTRY, Packs, known_manifests
from oscirc_remote.readiness import index_file

from .fakes import FakeClock
from .test_pack_source import ACCELERATOR, EDITED, FILE, FROM, OLD_DIGESTS, TO, World


class Mirrors:
    """Serves the pack's file, or what `files` has instead."""

    def __init__(self):
        self.files, self.asked = {ACCELERATOR.sha256: FILE}, []

    def get_range(self, accelerator, start, stop, deadline):
        self.asked.append((start, stop))
        if accelerator.sha256 not in self.files:
            raise NotServedError("not here")
        return self.files[accelerator.sha256][start:stop]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "blocks")
    world.source = type(world.source)(world.mirrors, world.ranges, world.store)
    world.keep(*OLD_DIGESTS)
    world.mirror, world.cache = Mirrors(), tmp_path
    (tmp_path / "accel").mkdir()
    return world


def use(world, *listed, known=(FROM.digest,), manifest=TO):
    packs = Packs(manifest.digest, manifest.manifest, world.source, world.mirror, world.cache, known)
    packs.use(Listing(TO.digest, listed), FakeClock().deadline())
    return packs


def test_a_pack_from_what_is_known_here_is_used(world):
    packs = use(world, ACCELERATOR)
    assert packs.may_help
    assert world.source.uses(ACCELERATOR)
    assert world.mirror.asked == [(0, ACCELERATOR.index_length)]


def test_a_second_time_nothing_is_asked_for(world):
    use(world, ACCELERATOR)
    assert index_file(world.cache, ACCELERATOR.sha256).read_bytes() == FILE[: ACCELERATOR.index_length]
    world.source = type(world.source)(world.mirrors, world.ranges, world.store)
    use(world, ACCELERATOR)
    assert world.source.uses(ACCELERATOR)
    assert len(world.mirror.asked) == 1


def test_an_index_that_was_kept_badly_is_fetched_again(world):
    index_file(world.cache, ACCELERATOR.sha256).write_bytes(b"rubbish")
    use(world, ACCELERATOR)
    assert world.source.uses(ACCELERATOR)
    assert world.counts("refused_packs") == (0,)  # nobody served it


def test_the_index_of_a_pack_that_proved_wrong_is_not_kept(world):
    use(world, ACCELERATOR)
    assert index_file(world.cache, ACCELERATOR.sha256).exists()
    world.ranges.change = lambda raw: bytes(len(raw))
    for _ in range(MOST_REFUSED):
        world.fetch(EDITED)
    assert not index_file(world.cache, ACCELERATOR.sha256).exists()


def test_what_does_not_start_from_here_is_not_looked_at(world):
    other = digest_of(b"some other version")
    packs = use(world, ACCELERATOR, known=(other,))
    assert (packs.may_help, world.mirror.asked) == (True, [])
    assert not use(world, ACCELERATOR, known=(TO.digest,)).may_help
    use(world, Accelerator(BUNDLE, ACCELERATOR.name, ACCELERATOR.sha256, len(FILE), 100))
    assert world.mirror.asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"length": len(FILE) + 1},
        {"index_length": ACCELERATOR.index_length - 1},
        {"index_length": ACCELERATOR.index_length + 1},
        {"index_length": 10},
        {"index_length": delta.MAX_INDEX_BYTES + 1, "length": 1 << 40},
        {"sha256": digest_of(b"not served")},
    ],
)
def test_a_pack_that_is_not_as_it_was_listed_is_passed_over(world, change):
    stated = {"sha256": ACCELERATOR.sha256, "length": len(FILE), "index_length": ACCELERATOR.index_length, **change}
    wrong = Accelerator(DELTA, ACCELERATOR.name, **stated)
    use(world, wrong)
    assert not world.source.uses(wrong)
    assert world.counts("packs", "refused_packs") == (0, 0 if "sha256" in change else 1)


def test_a_pack_to_another_disk_is_passed_over(world):
    use(world, ACCELERATOR, manifest=FROM, known=(FROM.digest, TO.digest))
    assert world.counts("packs") == (0,)


def test_a_pack_that_makes_more_than_the_disk_has_is_passed_over(world):
    made = [delta.MadeRecord(digest_of(bytes([n])), 999) for n in range(50)]  # blocks and nodes of the disk: 6
    raw = delta.build_index(TO.digest, FROM.digest, TO.manifest.geometry.block_size, made, [])
    named = Accelerator(DELTA, delta.name_for(FROM.digest), digest_of(raw), len(raw), len(raw))
    world.mirror.files[named.sha256] = raw
    use(world, named)
    assert world.counts("packs") == (0,)


def test_a_base_other_than_its_name_says_is_passed_over(world):
    raw = delta.build_index(TO.digest, digest_of(b"other"), TO.manifest.geometry.block_size, [], [])
    named = Accelerator(DELTA, delta.name_for(FROM.digest), digest_of(raw), len(raw), len(raw))
    world.mirror.files[named.sha256] = raw
    use(world, named)
    assert world.counts("packs") == (0,)


def test_what_is_known_are_receipts_pins_and_images_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "uses").mkdir()
    (tmp_path / "uses" / FROM.digest.hex()).write_bytes(b"")
    (tmp_path / "uses" / "something").write_bytes(b"")
    remote = type("Remote", (), {"directory": tmp_path / "remote"})()
    assert known_manifests(remote, tmp_path) == {FROM.digest}
    assert known_manifests(remote, tmp_path / "nothing") == frozenset()


def test_an_index_larger_than_such_a_disk_can_need_is_not_fetched(world):
    """Five blocks and a node: a listing that says more than 1 MiB and 4 KiB for each has megabytes fetched in vain."""
    most = INDEX_BYTES + 6 * INDEX_BYTES_OF_AN_ENTRY
    for index_length, asked in ((most, 1), (most + 1, 0), (delta.MAX_INDEX_BYTES, 0)):
        world.mirror.asked.clear()
        listed = Accelerator(DELTA, ACCELERATOR.name, digest_of(b"%d" % index_length), 1 << 30, index_length)
        use(world, listed)
        assert len(world.mirror.asked) == asked
    assert ACCELERATOR.index_length < most / 100
