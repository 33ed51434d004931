"""Frames are accepted in one form only, and judged before anything is allocated."""

import contextlib
import os
import struct
import tracemalloc

import pytest
import zstandard

from oscirc_blockstore import frame
from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError, FrameRefusedError

SIZE = 65536
RAW = (os.urandom(64) + bytes(64)) * (SIZE // 128)


@pytest.mark.parametrize("level", [1, 3, 9, 19])
def test_what_encode_writes_is_accepted_at_every_level(level):
    assert frame.decode_verified(frame.encode(RAW, level), SIZE, digest_of(RAW)) == RAW


@pytest.mark.parametrize("size", [32768, 65536, 262144, 1 << 20])
def test_random_bytes_stay_within_the_allowed_overhead(size):
    raw = os.urandom(size)
    assert len(frame.encode(raw, 1)) <= frame.max_frame_bytes(size)


def test_another_content_size_is_refused():
    with pytest.raises(FrameRefusedError, match="states 65536 bytes where 131072"):
        frame.decode(frame.encode(RAW), 2 * SIZE)


def test_a_frame_that_states_no_size_is_refused():
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(FrameRefusedError, match="states no size"):
        frame.decode(compressor.compress(RAW), SIZE)


def test_a_lying_size_is_refused():
    short = frame.encode(RAW[: SIZE // 2 + 512])  # two-byte size field: patch it to state SIZE
    header = bytearray(short)
    assert header[4] & 0xC0 == 0x40
    header[5:7] = struct.pack("<H", SIZE - 256)
    with pytest.raises(FrameRefusedError, match="does not decode"):
        frame.decode(bytes(header), SIZE)


def test_a_bomb_is_refused_before_memory_is_taken():
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    assert len(bomb) < frame.max_frame_bytes(SIZE)
    tracemalloc.start()
    with pytest.raises(FrameRefusedError):
        frame.decode(bomb, SIZE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_bytes_after_the_frame_are_refused():
    with pytest.raises(FrameRefusedError):
        frame.decode(frame.encode(RAW) + b"\0", SIZE)


def test_a_second_frame_is_refused():
    empty = zstandard.ZstdCompressor().compress(b"")
    with pytest.raises(FrameRefusedError):
        frame.decode(frame.encode(RAW) + empty, SIZE)


def test_a_skippable_frame_in_front_is_refused():
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"pads"
    with pytest.raises(FrameRefusedError, match="not a zstd frame"):
        frame.decode(skippable + frame.encode(RAW), SIZE)


def test_an_over_long_frame_is_refused():
    with pytest.raises(FrameRefusedError, match="over-long"):
        frame.decode(frame.encode(RAW) + bytes(SIZE + 1024), SIZE)


def test_every_truncation_is_refused():
    whole = frame.encode(RAW)
    for length in [0, 3, 4, 5, 6, 9, len(whole) // 2, len(whole) - 1]:
        with pytest.raises(FrameRefusedError):
            frame.decode(whole[:length], SIZE)


def test_a_dictionary_is_refused():
    samples = [os.urandom(32) + bytes([i % 7]) * 200 for i in range(2000)]
    dictionary = zstandard.train_dictionary(4096, samples)
    framed = zstandard.ZstdCompressor(dict_data=dictionary).compress(RAW)
    with pytest.raises(FrameRefusedError, match="dictionary"):
        frame.decode(framed, SIZE)


def test_a_large_window_is_refused():
    header = b"\x28\xb5\x2f\xfd" + bytes([0x80, (21 - 10) << 3]) + struct.pack("<I", SIZE)  # a 2 MiB window
    with pytest.raises(FrameRefusedError, match="window"):
        frame.decode(header + b"\x01\x00\x00", SIZE)


def test_every_flipped_bit_is_refused_or_harmless():
    raw = RAW[:512] * 128
    whole = frame.encode(raw)
    digest = digest_of(raw)
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(FrameRefusedError, DigestMismatchError):
            assert frame.decode_verified(bytes(damaged), SIZE, digest) == raw


def test_the_zero_digest_has_no_frame():
    with pytest.raises(DigestMismatchError):
        frame.decode_verified(frame.encode(bytes(SIZE)), SIZE, ZERO_DIGEST)


@pytest.mark.parametrize(
    "change", [lambda raw: raw[:-1], lambda raw: raw + b"0", lambda raw: b"PK" + raw[2:], lambda _: b""]
)
def test_an_index_that_is_not_the_frame_of_its_head_is_refused(change):
    packed = frame.pack(b"an index" * 100, level=19, window_log=23)
    assert frame.unpack(packed, 800, window_log=23, what="an index") == b"an index" * 100
    with pytest.raises(DocumentRefusedError, match="an index: "):
        frame.unpack(change(packed), 800, window_log=23, what="an index")
    with pytest.raises(DocumentRefusedError, match="an index: "):
        frame.unpack(packed, 801, window_log=23, what="an index")
