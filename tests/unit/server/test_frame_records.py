"""The framed body: records come out as they went in, however the bytes are cut; bad headers end it."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_blockstore import frame
from oscirc_blockstore.digests import Digest, digest_of, digest_of_zeros
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_blockstore.table import NODE_SIZE
from oscirc_server.errors import BodyTooLargeError, RecordRefusedError, RequestRefusedError
from oscirc_server.services.frame_records import MAX_RECORDS, RecordParser

from .server_world import BLOCK, Record, block, body_of


def parsed(pieces):
    parser = RecordParser(BLOCK)
    records = [record for piece in pieces for record in parser.feed(piece)]
    parser.finish()
    return [(record.digest, record.raw_size, record.frame) for record in records]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.sampled_from([BLOCK, NODE_SIZE])), max_size=8),
    st.lists(st.integers(0, 3000), max_size=12),
)
def test_records_survive_any_cutting(items, cuts):
    records = [Record(digest_of(content), size, content) for content, size in items]
    body = body_of(records)
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:stop] for start, stop in pairwise(edges)]
    assert parsed(pieces) == [(record.digest, record.raw_size, record.frame) for record in records]


def header(digest=b"\x01" * 32, raw_size=BLOCK, length=10):
    return struct.pack("<32sII", digest, raw_size, length)


@pytest.mark.parametrize(
    "bad",
    [
        header(raw_size=BLOCK * 2),
        header(raw_size=0),
        header(length=0),
        header(length=max_frame_bytes(BLOCK) + 1),
        header(raw_size=NODE_SIZE, length=max_frame_bytes(NODE_SIZE) + 1),
        header(digest=bytes(32)),
        header(digest=digest_of_zeros(BLOCK)),
        header(length=0xFFFFFFFF),
    ],
)
def test_a_bad_header_is_refused_before_its_frame_is_read(bad):
    good = Record(digest_of(b"x"), BLOCK, b"frame")
    parser = RecordParser(BLOCK)
    seen = []
    with pytest.raises(RecordRefusedError) as refusal:
        seen.extend(parser.feed(good.encoded() + bad))
    assert refusal.value.facts["record"] == 1


def test_records_before_a_bad_one_come_out():
    good = Record(Digest(digest_of(b"x")), BLOCK, b"frame")
    records = RecordParser(BLOCK).feed(good.encoded() + header(length=0))
    assert next(records).digest == good.digest
    with pytest.raises(RecordRefusedError):
        next(records)


@pytest.mark.parametrize("cut", [1, 39, 41])
def test_a_body_that_ends_inside_a_record_is_refused(cut):
    raw = Record(digest_of(b"x"), BLOCK, frame.encode(block("x"))).encoded()
    parser = RecordParser(BLOCK)
    assert list(parser.feed(raw[:cut])) == []
    with pytest.raises(RequestRefusedError):
        parser.finish()


def test_too_many_records_are_refused():
    parser = RecordParser(BLOCK)
    one = Record(digest_of(b"x"), BLOCK, b"f").encoded()
    assert len(list(parser.feed(one * MAX_RECORDS))) == MAX_RECORDS
    with pytest.raises(BodyTooLargeError):
        list(parser.feed(one))
