"""Publishing changes to a version: what is read, asked about and sent."""

import random

import pytest

from oscirc_blockstore import frame
from oscirc_blockstore.changed_disk import ChangedDisk
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import UsageError
from oscirc_blockstore.manifest import parse
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes
from .fake_repository import FakeRepository

BLOCK = 64 * KIB
SIZE = 80 * MIB  # two leaves and a root


class Changed(MemoryDisk):
    """A version in a repository, and bytes over it; counts what is loaded of the base."""

    def __init__(self, repository, manifest, writes):
        super().__init__(bytearray(repository.disk(manifest)), [ByteRange(0, 0)])
        self.before = bytes(self.raw)
        self._frames = dict(repository.frames)  # as a cache has them, whatever the repository loses
        self.base = parse(repository.files[f"manifests/{manifest.hex()}.json"])
        self.written = sorted(writes)
        for offset, raw in writes:
            self.raw[offset : offset + len(raw)] = raw
        self.loaded = []
        self.known_zeros = []

    def changed(self):
        return iter([ByteRange(offset, offset + len(raw)) for offset, raw in self.written])

    def reads_as_zeros(self, offset, size):
        return ByteRange(offset, offset + size) in self.known_zeros

    def read_base(self, offset, size):
        return self.before[offset : offset + size]

    def load_base(self, digest, raw_size):
        self.loaded.append(digest)
        size, raw = self._frames[digest]
        assert size == raw_size
        return frame.decode_verified(raw, size, digest)


@pytest.fixture
def released(repository, signatory):
    raw = bytearray(SIZE)
    for start, stop in ((0, 4 * MIB), (9 * MIB, 10 * MIB), (70 * MIB, 71 * MIB), (79 * MIB, SIZE)):
        raw[start:stop] = mixed_bytes(stop - start, start + 3)
    return publish(MemoryDisk(raw), signatory, "debian", "1", block_size=BLOCK).manifest


def publish_changed(disk, signatory, version="2", image="debian", **options):
    return publish(disk, signatory, image, version, block_size=BLOCK, **options)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def test_only_changes_are_read_asked_about_and_sent(repository, signatory, released):
    disk = Changed(repository, released, [(70 * MIB + 5, noise(3 * BLOCK))])
    assert isinstance(disk, ChangedDisk)
    asked = len(repository.asked)
    result = publish_changed(disk, signatory, base_is_there=True)
    assert repository.disk(result.manifest) == bytes(disk.raw)
    assert (result.read_bytes, result.new_blocks, result.new_nodes) == (4 * BLOCK, 4, 2)
    assert len(repository.asked) - asked == 4 + 2
    assert len(disk.loaded) == 2  # the root and the one leaf on the way
    assert sum(extent.size for extent in disk.read_ranges) == 4 * BLOCK


def test_the_manifest_is_that_of_the_whole_disk(repository, signatory, released):
    writes = [(MIB, bytes(MIB)), (9 * MIB, noise(100)), (79 * MIB, noise(MIB, 2))]
    disk = Changed(repository, released, writes)
    result = publish_changed(disk, signatory, base_is_there=True)
    whole = publish(MemoryDisk(bytes(disk.raw)), signatory, "debian", "3", block_size=BLOCK)
    assert result.manifest == whole.manifest
    assert (whole.new_blocks, whole.new_nodes) == (0, 0)


def test_a_block_that_became_zeros_is_a_zero(repository, signatory, released):
    disk = Changed(repository, released, [(10 * BLOCK, bytes(BLOCK))])
    result = publish_changed(disk, signatory, base_is_there=True)
    assert result.new_blocks == 0
    assert repository.disk(result.manifest) == bytes(disk.raw)


def test_what_is_known_to_be_zeros_is_not_read(repository, signatory, released):
    disk = Changed(repository, released, [(10 * BLOCK, bytes(2 * BLOCK))])
    disk.known_zeros = [ByteRange(10 * BLOCK, 11 * BLOCK)]
    result = publish_changed(disk, signatory, base_is_there=True)
    assert [extent.start for extent in disk.read_ranges] == [11 * BLOCK]
    assert repository.disk(result.manifest) == bytes(disk.raw)


def test_nothing_changed_is_the_same_manifest_and_sends_nothing(repository, signatory, released):
    received = repository.received_bytes
    result = publish_changed(Changed(repository, released, []), signatory, base_is_there=True)
    assert result.manifest == released
    assert (result.read_bytes, repository.received_bytes) == (0, received)


def test_another_repository_gets_what_it_lacks_of_the_base(repository, signatory, released, key):
    other = FakeRepository()
    other.add_publisher("alice", key.public)
    disk = Changed(repository, released, [(70 * MIB, noise(BLOCK))])
    base = repository.disk(released)
    known = digest_of(base[5 * BLOCK : 6 * BLOCK])
    other.frames[known] = repository.frames[known]
    with other.client() as rest:
        result = publish_changed(disk, Signatory(rest, "alice", key, repository="other"), "1")
    assert other.disk(result.manifest) == bytes(disk.raw)
    assert known not in disk.loaded
    replaced = digest_of(base[70 * MIB : 70 * MIB + BLOCK])
    assert replaced not in other.frames  # what the new version does not name is not sent
    assert len(other.asked) == len(set(other.asked))


def test_what_the_server_lost_of_the_base_is_found_missing_and_sent(repository, signatory, released):
    base = repository.disk(released)
    lost = digest_of(base[5 * BLOCK : 6 * BLOCK])
    disk = Changed(repository, released, [(70 * MIB, noise(BLOCK))])
    del repository.frames[lost]
    result = publish_changed(disk, signatory, base_is_there=True)
    assert disk.loaded.count(lost) == 1
    assert repository.disk(result.manifest) == bytes(disk.raw)


def test_another_block_size_than_the_base_has_is_refused(repository, signatory, released):
    with pytest.raises(UsageError, match="blocks of 65536 bytes"):
        publish(Changed(repository, released, []), signatory, "debian", "2", block_size=128 * KIB)


def test_the_same_changes_again_under_the_same_version_are_done_already(repository, signatory, released):
    writes = [(70 * MIB, noise(BLOCK))]
    first = publish_changed(Changed(repository, released, writes), signatory, base_is_there=True)
    again = publish_changed(Changed(repository, released, writes), signatory, base_is_there=True)
    assert (again.changed, again.manifest, again.uploaded_bytes) == (False, first.manifest, 0)
    with pytest.raises(UsageError, match="another disk"):
        publish_changed(Changed(repository, released, []), signatory, base_is_there=True)
