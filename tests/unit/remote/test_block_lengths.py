"""Block lengths on a workstation: fetched once, believed where they are what was listed, and never needed."""

from types import SimpleNamespace

import pytest

from oscirc_blockstore import lengths
from oscirc_blockstore.accelerators import LENGTHS, Accelerator, Listing
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, NotServedError, OversizedResponseError, UnreachableError
from oscirc_blockstore.manifest import Manifest, SystemFacts
from oscirc_blockstore.table import Geometry, TableBuilder, contents
from oscirc_remote import block_lengths as reading
from oscirc_remote.accelerator_files import leftovers
from oscirc_remote.block_lengths import by_digest, known_lengths, lengths_file

BLOCK = 65536


class Site:
    """Two mirrors with files by path, and what was asked of each."""

    def __init__(self, seed=b""):
        self.nodes = {}
        builder = TableBuilder(Geometry(5 * BLOCK, BLOCK), self.nodes.__setitem__)
        for position in (0, 1, 4):
            builder.add(position, digest_of(seed + b"%d" % position))
        self.manifest = Manifest("alice", "debian", Geometry(5 * BLOCK, BLOCK), builder.finish(), 3, SystemFacts())
        self.digest = digest_of(self.manifest.serialise())
        table = contents(self.manifest.geometry, self.manifest.root, self.nodes.__getitem__)
        self.known = {digest: 100 + at for at, digest in enumerate((*table.nodes, *table.blocks))}
        self.raw = lengths.build(
            self.digest, self.manifest.geometry, self.manifest.root, self.nodes.__getitem__, self.known
        )
        self.served = {"one": self.raw, "two": self.raw}
        self.asked = []

    @property
    def resolved(self):
        remote = SimpleNamespace(sources=lambda: ("one", "two"))
        return SimpleNamespace(manifest=self.manifest, manifest_digest=self.digest, remote=remote)

    def listing(self, raw=None, **changes):
        raw = self.raw if raw is None else raw
        facts = {"sha256": digest_of(raw), "length": len(raw), **changes}
        return Listing(self.digest, (Accelerator(LENGTHS, lengths.NAME, **facts),))

    def client(self, url):
        def get(path, max_bytes, _deadline):
            self.asked.append((url, path))
            answer = self.served[url]
            if isinstance(answer, Exception):
                raise answer
            if len(answer) > max_bytes:
                raise OversizedResponseError("longer than listed")
            return answer

        return SimpleNamespace(get=get, close=lambda: None)


@pytest.fixture
def site(monkeypatch):
    site = Site()
    monkeypatch.setattr(reading, "HttpClient", site.client)
    return site


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "accel").mkdir()
    return tmp_path


def test_what_the_server_says_is_known_of_every_block_and_node(site, cache):
    length = known_lengths(site.resolved, site.listing(), site.nodes.__getitem__, cache)
    assert {digest: length(digest) for digest in site.known} == site.known
    assert length(digest_of(b"another")) is None


def test_it_is_fetched_once_and_goes_with_its_image(site, cache):
    for _ in range(2):
        assert reading.block_lengths(site.resolved, site.listing(), cache) is not None
    assert len(site.asked) == 1
    place = lengths_file(cache, digest_of(site.raw))
    assert list(leftovers(cache, [], now=place.stat().st_mtime + 7200)) == [place]


def test_one_that_was_damaged_in_the_cache_is_fetched_again(site, cache):
    reading.block_lengths(site.resolved, site.listing(), cache)
    lengths_file(cache, digest_of(site.raw)).write_bytes(site.raw[:-1])
    assert reading.block_lengths(site.resolved, site.listing(), cache) is not None
    assert len(site.asked) == 2


@pytest.mark.parametrize("bad", [b"", b"x", NotServedError("gone"), UnreachableError("dead"), b"x" * 10_000], ids=repr)
def test_where_one_mirror_has_it_wrong_or_not_the_next_is_asked(site, cache, bad):
    site.served["one"] = bad
    assert reading.block_lengths(site.resolved, site.listing(), cache) is not None
    assert [url for url, _ in site.asked] == ["one", "two"]
    site.served["two"] = bad
    lengths_file(cache, digest_of(site.raw)).unlink()
    assert known_lengths(site.resolved, site.listing(), site.nodes.__getitem__, cache)(next(iter(site.known))) is None


def test_nothing_is_asked_for_where_none_is_listed_or_one_that_none_can_be(site, cache):
    assert reading.block_lengths(site.resolved, None, cache) is None
    assert reading.block_lengths(site.resolved, Listing(site.digest, ()), cache) is None
    assert reading.block_lengths(site.resolved, site.listing(length=lengths.MAX_FILE_BYTES + 1), cache) is None
    assert site.asked == []


def test_those_of_another_disk_are_refused_though_they_are_what_was_listed(site, cache):
    other = Site(b"other")
    site.served = {"one": other.raw, "two": other.raw}
    assert reading.block_lengths(site.resolved, site.listing(other.raw), cache) is None


def test_those_that_contradict_the_table_say_nothing(site, cache):
    builder = TableBuilder(site.manifest.geometry, site.nodes.__setitem__)
    builder.add(0, digest_of(b"0"))
    root = builder.finish()
    lying = lengths.build(
        site.digest,
        site.manifest.geometry,
        root,
        site.nodes.__getitem__,
        dict.fromkeys([root.digest, digest_of(b"0")], 9),
    )
    site.served = {"one": lying, "two": lying}
    found = reading.block_lengths(site.resolved, site.listing(lying), cache)
    with pytest.raises(DocumentRefusedError, match="another table"):
        by_digest(found, site.manifest, site.nodes.__getitem__)
    length = known_lengths(site.resolved, site.listing(lying), site.nodes.__getitem__, cache)
    assert length(digest_of(b"0")) is None
