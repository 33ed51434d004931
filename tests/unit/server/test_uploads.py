"""Uploads: what is kept, what is refused, and what becomes of files and rows that disagree."""

import asyncio
import gc

import pytest
import zstandard
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from oscirc_blockstore import frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import StoreFullError
from oscirc_blockstore.frame import max_frame_bytes
from oscirc_server.models import BLOCK_LIVE, BLOCK_STAGED, BlockRow, Lease
from oscirc_server.services.frame_records import MAX_BODY_BYTES
from oscirc_server.services.uploads import Uploader

from .server_world import BLOCK, FRAMES, Record, block, body_of

ZSTD = "application/zstd"


def record(text, level=3):
    raw = block(text)
    return Record(digest_of(raw), BLOCK, frame.encode(raw, level))


@pytest.fixture
def draft(api):
    return api.draft("alice", "debian", "1.0")


def path_of(world, digest):
    return world.tree / "blocks/sha256" / digest.hex()[:2] / f"{digest.hex()}.zst"


def rows(installation):
    with installation.database.read() as session:
        return {row.digest: row for row in session.scalars(select(BlockRow))}


def leases(installation, draft):
    with installation.database.read() as session:
        return set(session.scalars(select(Lease.digest).where(Lease.draft_id == draft)))


def test_frames_are_stored_as_sent_with_their_rows_and_leases(world, installation, api, draft):
    records = [record(str(number)) for number in range(40)]
    answer = api.upload(draft, records)
    assert answer.json() == {"stored": 40, "present": 0, "stored_bytes": sum(len(item.frame) for item in records)}
    for item in records:
        assert path_of(world, item.digest).read_bytes() == item.frame
    stored = rows(installation)
    assert {(row.raw_size, row.state) for row in stored.values()} == {
        (BLOCK, BLOCK_LIVE if world.place.keeps_what_is_put else BLOCK_STAGED)
    }
    assert {item.digest: len(item.frame) for item in records} == {key: row.stored_length for key, row in stored.items()}
    assert leases(installation, draft) == set(stored)


def test_the_first_stored_frame_wins(world, installation, api, draft):
    first, second = record("a", 1), record("a", 9)
    assert first.frame != second.frame
    assert api.upload(draft, [first]).json()["stored"] == 1
    assert api.upload(draft, [second]).json() == {"stored": 0, "present": 1, "stored_bytes": 0}
    assert path_of(world, first.digest).read_bytes() == first.frame
    assert rows(installation)[first.digest].stored_length == len(first.frame)


def test_a_frame_twice_in_one_body_is_stored_once(installation, api, draft):
    assert api.upload(draft, [record("a"), record("a")]).json()["stored"] == 1
    assert len(rows(installation)) == 1


def put_alone(api, draft, digest, content):
    return api.call("PUT", f"drafts/{draft}/frames/{digest.hex()}", content=content, headers={"Content-Type": ZSTD})


def test_a_frame_may_come_alone_under_its_digest(world, installation, api, draft):
    item = record("a")
    answer = put_alone(api, draft, item.digest, item.frame)
    assert (answer.status_code, answer.json()) == (
        200,
        {"stored": 1, "present": 0, "stored_bytes": len(item.frame)},
    )
    assert put_alone(api, draft, item.digest, item.frame).json() == {"stored": 0, "present": 1, "stored_bytes": 0}
    assert path_of(world, item.digest).read_bytes() == item.frame
    assert leases(installation, draft) == {item.digest}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"no frame at all", 422),
        (frame.encode(bytes(100)), 422),
        (frame.encode(block("another")), 422),
        (frame.encode(block("a")) + b"more", 422),
        (bytes(max_frame_bytes(1 << 20) + 1), 413),
    ],
)
def test_what_comes_alone_and_is_not_what_its_digest_says_is_refused(installation, api, draft, content, status):
    answer = put_alone(api, draft, record("a").digest, content)
    assert answer.status_code == status, answer.text
    assert rows(installation) == {}


def test_present_blocks_are_leased_to_whoever_asks(installation, api, draft, alice):
    api.upload(draft, [record("a")])
    other = api.draft("alice", "ubuntu", "1.0")
    assert api.missing(other, [record("a").digest, record("b").digest]) == [record("b").digest]
    assert leases(installation, other) == {record("a").digest}
    assert api.call("DELETE", f"drafts/{other}").status_code == 204
    assert leases(installation, other) == set()
    assert leases(installation, draft) == {record("a").digest}


def bomb(size):
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


def lying(raw):
    """A frame whose header states another size than it holds (the size is in bytes 5 to 8 of a frame like ours)."""
    good = bytearray(frame.encode(raw))
    assert zstandard.frame_content_size(bytes(good)) == len(raw)
    for at in range(5, 9):
        changed = bytes(good[:at]) + bytes([good[at] ^ 1]) + bytes(good[at + 1 :])
        if zstandard.frame_content_size(changed) != len(raw):
            return changed
    raise AssertionError


RAW = block("victim")
GOOD = frame.encode(RAW)
BAD_FRAMES = {
    "flipped bit": GOOD[:100] + bytes([GOOD[100] ^ 4]) + GOOD[101:],
    "swapped block": frame.encode(block("another")),
    "truncated": GOOD[:-1],
    "padded": GOOD + bytes(64),
    "two frames": GOOD + frame.encode(b"x"),
    "skippable frame after it": GOOD + b"\x50\x2a\x4d\x18\x00\x00\x00\x00",
    "skippable frame before it": b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + GOOD,
    "lying about its size": lying(RAW),
    "without a size": zstandard.ZstdCompressor(write_content_size=False).compress(RAW),
    "a bomb": bomb(1 << 30),
    "shorter content": frame.encode(RAW[:-1]),
    "not zstd": b"\x1f\x8b" + RAW[:1000],
    "stored raw": RAW[:1000],
}


@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_bad_frame_is_refused_and_those_before_it_are_kept(world, installation, api, draft, kind):
    bad = Record(digest_of(RAW), BLOCK, BAD_FRAMES[kind])
    answer = api.upload(draft, [record("before"), bad, record("after")])
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert (problem["type"], problem["record"], problem["digest"]) == ("RecordRefusedError", 1, bad.digest.hex())
    assert not path_of(world, bad.digest).exists()
    assert bad.digest not in rows(installation)
    assert path_of(world, record("before").digest).exists()
    assert record("before").digest in rows(installation)


def test_an_over_long_frame_is_refused_by_its_header(api, draft):
    long = Record(digest_of(RAW), BLOCK, b"\x28\xb5\x2f\xfd" + bytes(max_frame_bytes(BLOCK)))
    assert api.upload(draft, [long]).json()["type"] == "RecordRefusedError"


def test_a_frame_of_a_wrong_size_for_the_draft_is_refused(api, draft):
    raw = block("big", 2 * BLOCK)
    answer = api.upload(draft, [Record(digest_of(raw), 2 * BLOCK, frame.encode(raw))])
    assert (answer.status_code, answer.json()["type"]) == (422, "RecordRefusedError")


def test_a_body_cut_inside_a_record_keeps_the_whole_ones(installation, api, draft):
    raw = body_of([record("a"), record("b")])[:-5]
    answer = api.call("POST", f"drafts/{draft}/frames", content=raw, headers={"Content-Type": FRAMES})
    assert (answer.status_code, answer.json()["type"]) == (422, "RequestRefusedError")
    assert set(rows(installation)) == {record("a").digest}


def test_a_body_that_is_too_long_is_refused_unread(api, draft):
    answer = api.call("POST", f"drafts/{draft}/frames", content=bytes(MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["type"]) == (413, "BodyTooLargeError")
    assert answer.headers["cache-control"] == "no-store"


def test_an_empty_body_stores_nothing(api, draft):
    assert api.upload(draft, []).json() == {"stored": 0, "present": 0, "stored_bytes": 0}


def test_a_file_without_a_row_is_adopted_when_it_is_good(world, installation, api, draft):
    """A crash came between file and row, or the database is an older copy."""
    first, second = record("a", 1), record("a", 9)
    path = path_of(world, first.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(first.frame)
    assert api.missing(draft, [first.digest]) == [first.digest]
    assert api.upload(draft, [second]).json() == {"stored": 0, "present": 1, "stored_bytes": 0}
    assert path.read_bytes() == first.frame
    assert rows(installation)[first.digest].stored_length == len(first.frame)


@pytest.mark.parametrize("damage", [b"", b"\x28\xb5\x2f\xfd", GOOD])
def test_a_file_without_a_row_is_replaced_when_it_is_damaged(world, installation, api, draft, damage):
    """A power cut took its bytes before anything had synced them."""
    item = record("a")
    path = path_of(world, item.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    assert api.upload(draft, [item]).status_code == 200
    assert path.read_bytes() == item.frame
    assert rows(installation)[item.digest].stored_length == len(item.frame)


def test_nothing_is_uploaded_to_a_released_or_unknown_draft(api, alice):
    disk = alice.build("debian", [block("a")])
    draft = api.stage(alice, "debian", "1.0", disk)
    indexes = {"debian": alice.index_with("debian", "1.0", disk.digest)}
    assert api.call("POST", f"drafts/{draft}/release", json=alice.offer(indexes)).status_code == 200
    assert (api.upload(draft, [record("b")]).status_code, api.upload("nope", [record("b")]).status_code) == (409, 404)


def test_a_failure_while_storing_is_told_once_and_is_not_reported_as_one_that_nobody_heard_of(
    installation, draft, monkeypatch
):
    def gone(*_):
        raise OperationalError("INSERT", {}, Exception("gone"))

    monkeypatch.setattr(Uploader, "_lease", gone)
    uploader, told, unheard = Uploader(installation), [], []

    async def body():
        yield body_of([record("first")])

    async def upload():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, facts: unheard.append(facts))
        try:
            await uploader.store_body(draft, BLOCK, body())
        except OperationalError:
            told.append("gone")
        gc.collect()

    asyncio.run(upload())
    uploader.close()
    assert (told, unheard) == (["gone"], [])


def test_a_full_disk_is_told_as_such_and_what_was_written_is_kept(installation, api, draft, monkeypatch):
    real = installation.storage.put_if_absent
    full = record("second").digest.hex()

    def put(path, raw):
        if full in path:
            raise StoreFullError("no space left for /secret/place")
        return real(path, raw)

    monkeypatch.setattr(installation.storage, "put_if_absent", put)
    answer = api.upload(draft, [record("first"), record("second")])
    assert (answer.status_code, answer.json()["type"]) == (507, "StoreFullError")
    assert "/secret" not in answer.text
    assert set(rows(installation)) == {record("first").digest}
    monkeypatch.undo()
    assert api.upload(draft, [record("second")]).status_code == 200
