"""Delta packs on the server: kept when they are what they say, under the name of the version that they start from."""

import hashlib

import pytest

from oscirc_blockstore import accelerators as documents
from oscirc_blockstore import delta
from oscirc_blockstore.accelerators import DELTA
from oscirc_blockstore.delta import MadeRecord, Run, Source
from oscirc_blockstore.delta_record import encode
from oscirc_blockstore.digests import digest_of

from .server_world import BLOCK, block

VERSION = "images/alice/debian/versions/1.0"
BASE = digest_of(b"the version before")
NAME = delta.name_for(BASE)


@pytest.fixture
def disk(api, alice):
    """Released as debian@1.0 and `stable`."""
    built = alice.build("debian", [block("a"), None, block("b"), block("c")])
    assert api.publish(alice, "debian", "1.0", built).status_code == 200
    return built


def pack_of(disk, *, manifest=None, block_size=BLOCK, base=BASE):
    frame = encode(block("b"), b"")
    runs = (Run(Source.LITERAL, 0, block_size // delta.PAGE_SIZE),)
    made = MadeRecord(digest_of(block("b")), 500, len(frame), runs)
    return delta.build_index(manifest or disk.digest, base, block_size, [made], []) + frame


def put(api, raw, name=NAME):
    digest = hashlib.sha256(raw).hexdigest()
    return api.call("PUT", f"{VERSION}/accelerators/{DELTA}/{name}", params={"sha256": digest}, content=raw)


def test_a_pack_is_listed_and_served_as_a_file_and_removed_again(world, api, http, disk):
    raw = pack_of(disk)
    assert put(api, raw).status_code == 200

    def found():
        listing = documents.parse_listing((world.tree / documents.listing_path(disk.digest)).read_bytes())
        return listing.find(DELTA, NAME)

    assert http.get(f"/{found().path}").content == raw
    assert (found().length, found().index_length) == (len(raw), delta.index_length(raw))
    assert api.call("DELETE", f"{VERSION}/accelerators/{DELTA}/{NAME}").status_code == 204
    assert found() is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda _disk, raw: raw + b"\0", NAME),
        (lambda _disk, raw: raw[:-1], NAME),
        (lambda _disk, raw: raw[:40], NAME),
        (lambda _disk, raw: raw[: delta.HEAD_SIZE] + raw[delta.HEAD_SIZE + 1 :], NAME),
        (lambda _disk, raw: b"OSCBNDL1" + raw[8:], NAME),
        (lambda disk, _raw: pack_of(disk, manifest=digest_of(b"another")), NAME),
        (lambda disk, _raw: pack_of(disk, block_size=2 * BLOCK), NAME),
        (lambda disk, _raw: pack_of(disk, base=digest_of(b"some other")), NAME),
        (lambda _disk, raw: raw, "from-somewhere"),
    ],
)
def test_what_is_not_a_pack_to_this_version_is_refused(api, disk, change, name):
    answer = put(api, change(disk, pack_of(disk)), name)
    assert answer.status_code == 422, answer.text


def test_a_pack_longer_than_all_that_it_could_say_is_not_taken_in(api, disk, monkeypatch):
    raw = pack_of(disk) + bytes(4 * (BLOCK + 2048))
    monkeypatch.setattr(delta, "MAX_INDEX_BYTES", 0)
    answer = put(api, raw)
    assert answer.status_code == 413, answer.text


def test_a_pack_that_makes_more_than_the_version_has_is_refused_before_it_takes_memory(api, disk, monkeypatch):
    """A record takes hundreds of times the bytes in memory that it takes packed."""

    def must_not_be_made(*_):
        raise AssertionError("records were made")

    records = [MadeRecord(digest_of(b"%d" % number), 100) for number in range(200)]
    raw = delta.build_index(disk.digest, BASE, BLOCK, records, [])
    monkeypatch.setattr(delta, "_parse_records", must_not_be_made)
    answer = put(api, raw, NAME)
    assert answer.status_code == 422
    assert "makes 200 blocks and nodes" in answer.text
