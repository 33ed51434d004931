import threading

import httpx
import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.disk_source import ByteRange
from oscirc_blockstore.errors import (
    DiskRefusedError,
    LocalError,
    NameRefusedError,
    NotFoundError,
    ServerRefusedError,
    UnreachableError,
    UsageError,
)
from oscirc_blockstore.manifest import SystemFacts
from oscirc_publisher import building
from oscirc_publisher.publishing import publish
from oscirc_publisher.releasing import Signatory

from .conftest import KIB, MIB, MemoryDisk, mixed_bytes
from .fake_repository import Once, problem

BLOCK = 64 * KIB


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """Small disks are to take several batches, as large ones do."""
    monkeypatch.setattr(building, "BATCH_BYTES", 4 * MIB)


def publish_small(disk, signatory, version="1", **options):
    return publish(disk, signatory, "debian", version, block_size=BLOCK, **options)


def test_a_disk_is_released_and_reads_back_whole(repository, signatory):
    raw = mixed_bytes(5 * MIB + 512)
    result = publish_small(MemoryDisk(raw), signatory, changelog="first\nversion")
    assert repository.disk(result.manifest) == raw
    index = repository.index("alice", "debian")
    assert index.channels == {"stable": "1"}
    assert index.version("1").manifest == result.manifest
    assert index.version("1").changelog == "first\nversion"
    assert result.changed
    assert result.role_version == 1
    assert result.channels == ("stable",)
    assert result.new_blocks == result.blocks
    assert result.nodes == result.new_nodes == 1
    assert result.uploaded_bytes == repository.received_bytes
    assert result.disk_size == len(raw)


def test_the_same_disk_and_arguments_give_the_same_manifest(repository, signatory):
    raw = mixed_bytes(3 * MIB)
    facts = SystemFacts(family="debian", version="12")
    one = publish_small(MemoryDisk(raw), signatory, "1", system=facts, workers=1)
    pieces = [ByteRange(at, min(at + 100_000, len(raw))) for at in range(0, len(raw), 100_000)]
    two = publish_small(MemoryDisk(raw, pieces), signatory, "2", system=facts, workers=7, level=9, channel=None)
    assert one.manifest == two.manifest
    assert two.new_blocks == two.new_nodes == two.uploaded_bytes == 0
    assert repository.index("alice", "debian").channels == {"stable": "1"}


def test_a_changed_disk_uploads_its_changed_blocks_and_their_nodes_only(repository, signatory):
    raw = bytearray(mixed_bytes(80 * MIB))  # 1280 blocks: two leaves and a root
    publish_small(MemoryDisk(raw), signatory, "1")
    asked = len(repository.asked)
    raw[70 * MIB] ^= 0xFF
    result = publish_small(MemoryDisk(raw), signatory, "2")
    assert result.new_blocks == 1
    assert result.new_nodes == 2
    assert result.nodes == 3
    assert result.new_bytes == BLOCK
    assert len(repository.asked) - asked == 1 + 2  # the version before has the others at the same places
    assert repository.disk(result.manifest) == raw


def test_an_equal_block_is_asked_for_and_sent_once(repository, signatory):
    block = mixed_bytes(BLOCK)
    result = publish_small(MemoryDisk(block * 300), signatory, workers=1)
    assert (result.data_blocks, result.blocks, result.new_blocks) == (300, 1, 1)
    assert repository.asked.count(digest_of(block)) == 1


def test_holes_are_never_read_and_zeros_never_sent(repository, signatory):
    raw = bytearray(64 * MIB)
    raw[10 * MIB : 10 * MIB + 3] = b"abc"
    disk = MemoryDisk(raw, [ByteRange(10 * MIB, 10 * MIB + 4096), ByteRange(20 * MIB, 21 * MIB)])
    result = publish_small(disk, signatory)
    assert (result.data_blocks, result.new_blocks, result.read_bytes) == (1, 1, BLOCK + MIB)
    assert sum(extent.size for extent in disk.read_ranges) == BLOCK + MIB
    assert repository.disk(result.manifest) == raw


def test_an_empty_disk_has_no_table_and_is_a_disk(repository, signatory):
    result = publish_small(MemoryDisk(bytes(MIB), [ByteRange(0, 0)]), signatory)
    assert (result.data_blocks, result.nodes, result.uploaded_bytes) == (0, 0, 0)
    assert repository.disk(result.manifest) == bytes(MIB)


def test_the_same_version_with_the_same_disk_is_done_already(repository, signatory):
    disk = MemoryDisk(mixed_bytes(MIB))
    first = publish_small(disk, signatory, "1")
    publish_small(MemoryDisk(mixed_bytes(MIB, 2)), signatory, "2")
    before = len(repository.requests)
    again = publish_small(disk, signatory, "1")
    assert not again.changed
    assert again.manifest == first.manifest
    assert again.uploaded_bytes == 0
    assert all(method == "GET" for method, _ in repository.requests[before:])
    assert repository.index("alice", "debian").channels == {"stable": "2"}  # not moved back


def test_the_same_version_with_another_disk_is_refused_before_anything_is_sent(repository, signatory):
    publish_small(MemoryDisk(mixed_bytes(MIB)), signatory, "1")
    before = len(repository.requests)
    with pytest.raises(UsageError, match="already released with another disk"):
        publish_small(MemoryDisk(mixed_bytes(MIB, 2)), signatory, "1")
    assert all(method == "GET" for method, _ in repository.requests[before:])


def test_no_channel_moves_none(repository, signatory):
    publish_small(MemoryDisk(mixed_bytes(MIB)), signatory, channel=None)
    assert repository.index("alice", "debian").channels == {}


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"image": "../x"}, NameRefusedError),
        ({"version": "a b"}, NameRefusedError),
        ({"channel": "?"}, NameRefusedError),
        ({"changelog": "\x1b[31m"}, UsageError),
        ({"changelog": "x" * 20_000}, UsageError),
        ({"level": 0}, UsageError),
        ({"block_size": 4096}, UsageError),
        ({"block_size": 100_000}, UsageError),
    ],
)
def test_bad_arguments_are_refused_before_any_request(repository, signatory, arguments, kind):
    disk = MemoryDisk(mixed_bytes(MIB))
    with pytest.raises(kind):
        publish(disk, signatory, **{"image": "debian", "version": "1", **arguments})
    assert repository.requests == []
    assert disk.read_ranges == []


@pytest.mark.parametrize("size", [0, 1000, 513])
def test_a_disk_that_is_no_whole_number_of_sectors_is_refused(repository, signatory, size):
    with pytest.raises(DiskRefusedError):
        publish_small(MemoryDisk(bytes(size)), signatory)
    assert repository.requests == []


STEPS = [
    ("GET", "api/v1/publishers/alice"),
    ("POST", "api/v1/drafts"),
    ("POST", "api/v1/drafts/.*/missing"),
    ("POST", "api/v1/drafts/.*/frames"),
    ("PUT", "api/v1/drafts/.*/manifest"),
    ("POST", "api/v1/drafts/.*/release"),
]


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[1])
@pytest.mark.parametrize("kind", ["lost", "interrupt"])
def test_interrupted_at_any_step_the_same_call_again_completes(repository, signatory, step, skip, kind):
    """A connection that breaks, and Ctrl-C (which reaches the caller's thread wherever it is)."""
    raw = mixed_bytes(40 * MIB)
    error = httpx.ReadError("broken") if kind == "lost" else KeyboardInterrupt()
    fault = Once(*step, error, skip=skip)
    repository.faults.append(fault)
    try:
        publish_small(MemoryDisk(raw), signatory, workers=2)
    except (UnreachableError, KeyboardInterrupt):
        assert fault.hits
        assert "alice/debian" not in str(repository.files.keys())
        assert repository.publishers["alice"].role_version == 0
    repository.faults.clear()
    with repository.client() as rest:
        result = publish_small(MemoryDisk(raw), Signatory(rest, "alice", signatory.key))
    assert repository.disk(result.manifest) == raw
    assert len(repository.drafts) == 1
    assert repository.index("alice", "debian").version("1").manifest == result.manifest


def test_what_arrived_before_an_interruption_is_not_sent_again(repository, signatory):
    raw = mixed_bytes(40 * MIB)
    repository.faults.append(Once("POST", ".*/frames", httpx.ReadError("broken"), skip=3))
    with pytest.raises(UnreachableError):
        publish_small(MemoryDisk(raw), signatory, workers=1)
    stored = len(repository.frames)
    assert stored
    with repository.client() as rest:
        result = publish_small(MemoryDisk(raw), Signatory(rest, "alice", signatory.key))
    assert result.new_blocks == result.blocks - stored


def test_a_draft_begun_with_another_block_size_is_replaced(repository, signatory):
    raw = mixed_bytes(MIB)
    with repository.client() as rest:
        rest.call_json(
            "POST", "drafts", {"publisher": "alice", "image": "debian", "version": "1", "block_size": 1 << 20}
        )
    result = publish_small(MemoryDisk(raw), signatory)
    assert repository.disk(result.manifest) == raw
    assert repository.count("DELETE", "api/v1/drafts/.*") == 1


def test_a_disk_that_changed_while_it_was_read_is_not_released(repository, signatory):
    class Changing(MemoryDisk):
        def check_unchanged(self):
            raise DiskRefusedError("changed")

    with pytest.raises(DiskRefusedError):
        publish_small(Changing(mixed_bytes(MIB)), signatory)
    assert repository.count("PUT", ".*manifest") == 0


def test_a_read_error_ends_everything_with_that_error(repository, signatory):
    class Failing(MemoryDisk):
        def read(self, offset, size):
            if offset >= 20 * MIB:
                raise LocalError("cannot read")
            return super().read(offset, size)

    with pytest.raises(LocalError, match="cannot read"):
        publish_small(Failing(mixed_bytes(40 * MIB)), signatory)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_a_short_read_is_an_error(signatory):
    class Short(MemoryDisk):
        def read(self, offset, size):
            return super().read(offset, size)[:-1]

    with pytest.raises(LocalError):
        publish_small(Short(mixed_bytes(MIB)), signatory)


def test_blocks_that_the_server_lost_before_the_release_are_sent_again(repository, signatory):
    raw = mixed_bytes(4 * MIB)

    def lose(request):
        if request.url.path.endswith("/release") and lose.armed:
            lose.armed = False
            for digest in list(repository.frames)[:3]:
                del repository.frames[digest]

    lose.armed = True
    repository.faults.append(lose)
    result = publish_small(MemoryDisk(raw), signatory)
    assert repository.disk(result.manifest) == raw
    assert result.new_blocks == 3
    assert result.uploaded_bytes == repository.received_bytes


def test_a_server_that_always_misses_blocks_is_given_up(repository, signatory):
    repository.faults.append(
        Once("POST", ".*/release", problem(422, "MissingBlocksError", "lost", missing=2), times=100)
    )
    with pytest.raises(ServerRefusedError, match="lost"):
        publish_small(MemoryDisk(mixed_bytes(MIB)), signatory)
    assert repository.count("POST", ".*/release") < 10


def test_a_release_whose_answer_was_lost_is_found_done(repository, signatory):
    real = repository.handle

    def lossy(request):
        if request.url.path.endswith("/release"):
            repository.faults.clear()
            real(request)
            raise httpx.ReadError("broken")

    repository.faults.append(lossy)
    with repository.client(pauses_s=(0.0,)) as rest:
        result = publish_small(MemoryDisk(mixed_bytes(MIB)), Signatory(rest, "alice", signatory.key))
    assert result.changed
    assert repository.publishers["alice"].role_version == 1


def test_two_publishers_at_the_same_moment_both_stand(repository, signatory):
    def other_first(request):
        if request.url.path.endswith("/release"):
            repository.faults.clear()
            with repository.client() as rest:
                publish_small(MemoryDisk(mixed_bytes(MIB, 9)), Signatory(rest, "alice", signatory.key), "other")

    repository.faults.append(other_first)
    result = publish_small(MemoryDisk(mixed_bytes(MIB)), signatory, "mine")
    index = repository.index("alice", "debian")
    assert {version.label for version in index.versions} == {"other", "mine"}
    assert index.channels == {"stable": "mine"}
    assert result.role_version == 2


def test_an_unknown_publisher_is_told_what_to_do(repository, key):
    with repository.client() as rest, pytest.raises(NotFoundError) as caught:
        publish_small(MemoryDisk(mixed_bytes(MIB)), Signatory(rest, "bob", key))
    assert "publisher add bob" in caught.value.hint


def test_a_wrong_token_is_refused_with_a_hint(repository, key):
    repository.add_publisher("alice", key.public)
    with repository.client(token="other") as rest, pytest.raises(ServerRefusedError) as caught:
        publish_small(MemoryDisk(mixed_bytes(MIB)), Signatory(rest, "alice", key))
    assert "oscirc login" in caught.value.hint


def test_progress_counts_up_to_what_is_read(signatory):
    reports = []
    publish_small(MemoryDisk(mixed_bytes(40 * MIB)), signatory, progress=lambda *report: reports.append(report))
    phases = [phase for phase, *_ in reports]
    assert phases == sorted(phases, key=["uploading", "releasing"].index)
    done = [report[1] for report in reports]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == reports[-1][2] == 40 * MIB
    assert reports[-1][3] > 0
