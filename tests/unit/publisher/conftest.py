"""What the publisher's tests share: a fake repository, keys made once, small disks in memory and in files."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oscirc_blockstore import keys
from oscirc_blockstore.disk_source import ByteRange
from oscirc_publisher.releasing import Signatory
from oscirc_publisher.signing import PublisherKey

from .fake_repository import FakeRepository

KIB, MIB = 1 << 10, 1 << 20


class MemoryDisk:
    """A disk of bytes with stated extents; counts what is read of it."""

    def __init__(self, raw, extents=None):
        self.raw = raw
        self.stated = extents or [ByteRange(0, len(raw))]
        self.read_ranges = []
        self.closed = False

    @property
    def size(self):
        return len(self.raw)

    def extents(self):
        return iter(self.stated)

    def read(self, offset, size):
        self.read_ranges.append(ByteRange(offset, min(offset + size, len(self.raw))))
        return bytes(self.raw[offset : offset + size])

    def close(self):
        self.closed = True


def mixed_bytes(size, seed=1):
    """Bytes that compress about as disks do: random words, text, zeros."""
    source = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        kind = source.randrange(3)
        length = source.randrange(1, 96 * KIB)
        if kind == 0:
            out += source.randbytes(length)
        elif kind == 1:
            out += (b"%d a line of text\n" % source.randrange(1 << 30)) * (length // 24 + 1)
        else:
            out += bytes(length)
    return bytes(out[:size])


@pytest.fixture
def repository():
    return FakeRepository()


@pytest.fixture
def key(tmp_path):
    return PublisherKey("work", keys.generate(), tmp_path / "work.json")


@pytest.fixture
def signatory(repository, key):
    repository.add_publisher("alice", key.public)
    with repository.client() as rest:
        yield Signatory(rest, "alice", key)
