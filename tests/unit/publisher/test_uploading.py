import json
import random
import struct

import httpx
import pytest

from oscirc_blockstore import frame
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DocumentRefusedError,
    OscircError,
    OversizedResponseError,
    ServerRefusedError,
    UnreachableError,
)
from oscirc_publisher import uploading
from oscirc_publisher.uploading import Record, open_draft, send_role

from .conftest import KIB
from .fake_repository import Once, problem

BLOCK = 64 * KIB


def record(number):
    raw = random.Random(number).randbytes(BLOCK)  # which do not compress: all frames are of one length
    return Record(digest_of(raw), BLOCK, frame.encode(raw))


@pytest.fixture
def draft(repository):
    with repository.client(pauses_s=(0, 0)) as rest:
        yield open_draft(rest, "alice", "debian", "1", BLOCK)


def test_a_record_has_the_form_of_the_protocol():
    one = record(1)
    raw = one.encoded()
    assert raw == one.digest + struct.pack("<II", BLOCK, len(one.frame)) + one.frame
    assert len(raw) == one.size


def test_an_open_draft_is_found_again(repository, draft):
    with repository.client() as rest:
        open_draft(rest, "alice", "debian", "1", BLOCK)
        open_draft(rest, "alice", "debian", "2", BLOCK)
    assert len(repository.drafts) == 2


def test_missing_asks_in_bounded_requests_and_keeps_the_order(repository, draft, monkeypatch):
    monkeypatch.setattr(uploading, "MAX_DIGESTS_PER_REQUEST", 4)
    records = [record(number) for number in range(10)]
    draft.store([records[3], records[7]])
    digests = [item.digest for item in records]
    assert draft.missing(digests) == [digest for at, digest in enumerate(digests) if at not in (3, 7)]
    assert repository.count("POST", ".*/missing") == 3
    assert draft.missing([]) == []


def test_bodies_keep_both_limits(repository, draft, monkeypatch):
    records = [record(number) for number in range(1, 11)]
    monkeypatch.setattr(uploading, "MAX_RECORDS_PER_BODY", 4)
    outcome = draft.store(records)
    assert repository.count("POST", ".*/frames") == 3
    assert (outcome.stored, outcome.present) == (10, 0)
    assert outcome.sent_bytes == sum(item.size for item in records)
    monkeypatch.setattr(uploading, "MAX_BODY_BYTES", records[0].size * 2 + 1)
    again = draft.store(records)
    assert (again.stored, again.present) == (0, 10)
    assert repository.count("POST", ".*/frames") == 3 + 5
    assert draft.store([]).sent_bytes == 0


def test_a_body_that_failed_is_not_sent_again_as_it_was(repository, draft):
    """The connection breaks after the server has kept some of the records: only the others travel again."""
    records = [record(number) for number in range(1, 6)]

    def half(request):
        if request.url.path.endswith("/frames"):
            repository.faults.clear()
            body = request.read()
            repository._store(next(iter(repository.drafts.values())), body[: records[0].size + records[1].size])
            raise httpx.WriteError("broken")

    repository.faults.append(half)
    outcome = draft.store(records)
    assert outcome.stored == 5
    assert len(repository.frames) == 5
    assert repository.received_bytes == sum(item.size for item in records)
    assert outcome.sent_bytes == sum(item.size for item in records) + sum(item.size for item in records[2:])


def test_a_body_whose_answer_was_lost_is_done(repository, draft):
    records = [record(1), record(2)]

    def lost(request):
        if request.url.path.endswith("/frames"):
            repository.faults.clear()
            repository.handle(request)
            raise httpx.ReadError("broken")

    repository.faults.append(lost)
    assert draft.store(records).stored == 2
    assert repository.count("POST", ".*/frames") == 2  # the lost one is counted twice: ours and the fault's own
    repository.faults.append(Once("POST", ".*/frames", httpx.ReadError("broken"), times=100))
    with pytest.raises(UnreachableError):
        draft.store([record(3)])


def test_a_refused_record_is_the_servers_word(repository, draft):
    repository.faults.append(Once("POST", ".*/frames", problem(422, "FrameRefusedError", "record 0 is long")))
    with pytest.raises(OscircError, match="record 0 is long"):
        draft.store([record(1)])


def test_a_frame_that_no_server_takes_is_never_sent(repository, draft):
    bad = Record(digest_of(b""), BLOCK, bytes(BLOCK + 2000))
    with pytest.raises(OscircError, match="over-long"):
        draft.store([bad])
    assert repository.count("POST", ".*/frames") == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"x" * 31,
        digest_of(b"never asked for"),
        b"".join([record(2).digest, record(1).digest]),
        b"".join([record(1).digest, record(1).digest]),
    ],
    ids=["cut", "foreign", "order", "twice"],
)
def test_a_list_of_missing_blocks_that_is_not_part_of_what_was_asked_is_refused(repository, draft, answer):
    repository.faults.append(Once("POST", ".*/missing", httpx.Response(200, content=answer)))
    with pytest.raises(DocumentRefusedError):
        draft.missing([record(1).digest, record(2).digest])


def test_a_list_longer_than_what_was_asked_is_not_even_read(repository, draft):
    repository.faults.append(Once("POST", ".*/missing", httpx.Response(200, content=bytes(1 << 20))))
    with pytest.raises(OversizedResponseError):
        draft.missing([record(1).digest])


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"stored": -1, "present": 2},
        {"stored": "1", "present": 0},
        {"stored": True, "present": 0},
        {"stored": 1.0, "present": 0},
        {"stored": 0, "present": 0},
        {"stored": 1 << 60, "present": 0},
    ],
)
def test_an_upload_whose_answer_does_not_add_up_is_refused(repository, draft, answer):
    repository.faults.append(Once("POST", ".*/frames", httpx.Response(200, content=json.dumps(answer).encode())))
    with pytest.raises(DocumentRefusedError):
        draft.store([record(1)])


@pytest.mark.parametrize("identifier", ["../../roles/root", "", "a b", "a?b", "x" * 200, None, 7])
def test_a_draft_that_is_called_what_no_path_should_hold_is_refused(repository, identifier):
    answer = {"id": identifier, "state": "open", "block_size": BLOCK}
    repository.faults.append(Once("POST", ".*/drafts", httpx.Response(200, content=json.dumps(answer).encode())))
    with repository.client() as rest, pytest.raises(DocumentRefusedError):
        open_draft(rest, "alice", "debian", "1", BLOCK)


def test_a_server_that_insists_on_another_block_size_is_given_up(repository):
    answer = httpx.Response(200, content=json.dumps({"id": "d0", "block_size": 4096}).encode())
    with repository.client() as rest:
        open_draft(rest, "alice", "debian", "1", BLOCK)
        repository.drafts["d1"] = repository.drafts["d0"]
        repository.faults.append(Once("POST", ".*/drafts", answer, times=9))
        repository.faults.append(Once("DELETE", ".*", httpx.Response(204), times=9))
        with pytest.raises(DocumentRefusedError, match="block size"):
            open_draft(rest, "alice", "debian", "1", BLOCK)


def test_a_role_travels_in_base64_and_a_conflict_comes_back(repository):
    repository.faults.append(Once("PUT", ".*/role", problem(409, "RoleConflictError", "first", current_version=3)))
    with repository.client() as rest, pytest.raises(ServerRefusedError) as caught:
        send_role(rest, "PUT", "publishers/alice/role", b"{}", {"debian": b"[]"})
    assert caught.value.problem["current_version"] == 3
