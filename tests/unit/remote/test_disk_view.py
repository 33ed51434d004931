"""Bytes of a disk by offset: exact, whatever the windows, and never more looked at than is allowed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import DocumentRefusedError
from oscirc_remote.disk_view import DiskView

BLOCK = 128 << 10
RAW = random.Random(5).randbytes(3 * BLOCK) + bytes(BLOCK) + random.Random(6).randbytes(BLOCK // 2)


class Blocks:
    """A disk in memory that notes what is asked of it."""

    block_size, disk_size = BLOCK, len(RAW)

    def __init__(self):
        self.fetched, self.read = [], []

    def fetch_all(self, positions):
        self.fetched.append(list(positions))

    def block(self, position):
        self.read.append(position)
        return RAW[position * BLOCK : (position + 1) * BLOCK].ljust(BLOCK, b"\0")

    def digest_at(self, position):
        raw = RAW[position * BLOCK : (position + 1) * BLOCK]
        return digest_of(raw) if any(raw) else None


VIEW = DiskView(Blocks())


@given(st.integers(-10, len(RAW) + 10), st.integers(0, 3 * BLOCK))
def test_it_reads_what_stands_there_and_less_only_at_the_end(offset, size):
    expected = RAW[offset : offset + size] if offset >= 0 else b""
    assert VIEW.read(offset, size) == expected


def test_small_reads_of_one_place_ask_for_it_once():
    blocks = Blocks()
    view = DiskView(blocks)
    for at in range(0, 64 << 10, 256):
        view.read(BLOCK + at, 128)
    assert blocks.read == [1]


def test_what_will_be_read_is_fetched_together_and_once():
    blocks = Blocks()
    view = DiskView(blocks)
    view.prepare([ByteRange(0, 10), ByteRange(BLOCK - 1, BLOCK + 1), ByteRange(5, 5)])
    view.prepare([ByteRange(4 * BLOCK, 9 * BLOCK), ByteRange(0, 1)])
    assert blocks.fetched == [[0, 1], [4]]


def test_the_blocks_of_some_bytes_are_named_without_zeros():
    digests = DiskView(Blocks()).digests([ByteRange(2 * BLOCK, 4 * BLOCK)])
    assert digests == {digest_of(RAW[2 * BLOCK : 3 * BLOCK])}


def test_more_than_is_allowed_is_not_looked_at():
    blocks = Blocks()
    view = DiskView(blocks, max_bytes=2 * BLOCK)
    view.read(0, 2 * BLOCK)
    for look in (lambda: view.read(2 * BLOCK, 1), lambda: view.prepare([ByteRange(4 * BLOCK, 4 * BLOCK + 1)])):
        with pytest.raises(DocumentRefusedError, match="too much"):
            look()
    with pytest.raises(DocumentRefusedError, match="too much"):
        DiskView(Blocks(), max_bytes=2 * BLOCK).prepare([ByteRange(0, 1 << 50)])
    assert 4 not in blocks.read
    assert blocks.fetched == []


def test_few_windows_are_kept_however_much_is_read(monkeypatch):
    monkeypatch.setattr("oscirc_remote.disk_view._KEPT_WINDOWS", 2)
    view = DiskView(blocks := Blocks())
    for at in (0, BLOCK, 0, 2 * BLOCK, 0, BLOCK):
        view.read(at, 1)
    assert blocks.read == [0, 1, 2, 1]
