import httpx
import pytest

from oscirc_blockstore import frame, manifest
from oscirc_blockstore.digests import block_digest, block_path
from oscirc_publisher import building, earlier_version
from oscirc_publisher.earlier_version import EarlierVersion
from oscirc_publisher.publishing import publish

from .conftest import MIB, MemoryDisk, mixed_bytes
from .fake_repository import Once, problem
from .test_publishing import BLOCK, publish_small


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(building, "BATCH_BYTES", 4 * MIB)


@pytest.fixture(scope="module")
def made_once():
    return mixed_bytes(80 * MIB)  # 1280 blocks: two leaves and a root


@pytest.fixture
def raw(made_once):
    return bytearray(made_once)


def nodes_fetched(repository):
    return repository.count("GET", "blocks/sha256/.*")


def test_only_what_the_version_before_has_not_in_its_place_is_asked_about(repository, signatory, raw):
    publish_small(MemoryDisk(raw), signatory, "1")
    repository.asked.clear()
    moved = bytes(raw[5 * BLOCK : 6 * BLOCK])
    raw[70 * BLOCK : 71 * BLOCK] = moved
    new = mixed_bytes(BLOCK, 77)
    raw[1200 * BLOCK : 1201 * BLOCK] = new
    result = publish_small(MemoryDisk(raw), signatory, "2")
    assert set(repository.asked) >= {block_digest(new)}
    assert len(repository.asked) <= 1 + 1 + 3
    assert nodes_fetched(repository) == 3
    assert repository.disk(result.manifest) == raw


def test_a_disk_that_grew_or_shrank_is_compared_as_far_as_both_go(repository, signatory, raw):
    publish_small(MemoryDisk(raw[: 40 * MIB]), signatory, "1")
    for version, size in (("2", 80 * MIB), ("3", 20 * MIB)):
        repository.asked.clear()
        result = publish_small(MemoryDisk(raw[:size]), signatory, version)
        assert repository.disk(result.manifest) == raw[:size]
        assert len(repository.asked) < 700


def test_the_channel_says_which_version_is_before(repository, signatory, raw):
    publish_small(MemoryDisk(raw[: 8 * MIB]), signatory, "1")
    publish_small(MemoryDisk(mixed_bytes(8 * MIB, 5)), signatory, "2", channel="other")
    repository.asked.clear()
    publish_small(MemoryDisk(raw[: 8 * MIB]), signatory, "3")
    assert not repository.asked
    publish_small(MemoryDisk(mixed_bytes(8 * MIB, 5)), signatory, "4", channel="other")
    assert not repository.asked


def test_another_block_size_has_nothing_in_common(repository, signatory, raw):
    publish_small(MemoryDisk(raw[: 8 * MIB]), signatory, "1")
    repository.asked.clear()
    result = publish(MemoryDisk(raw[: 8 * MIB]), signatory, "debian", "2", block_size=2 * BLOCK)
    assert len(repository.asked) == result.blocks + result.nodes
    assert nodes_fetched(repository) == 0


@pytest.mark.parametrize("what", ["absent", "garbage", "another", "refused"])
def test_a_table_that_cannot_be_had_costs_its_questions_only(repository, signatory, raw, what):
    first = publish_small(MemoryDisk(raw), signatory, "1")
    repository.asked.clear()
    path = block_path(table_root(repository, first))
    answers = {
        "absent": problem(404, "NotFoundError", "gone"),
        "garbage": problem(200, "x", "y"),
        "another": as_file(frame.encode(bytes(range(256)) * 128, 1)),
        "refused": problem(307, "x", "elsewhere"),
    }
    repository.faults.append(Once("GET", path, answers[what], times=100))
    raw[0] ^= 1
    result = publish_small(MemoryDisk(raw), signatory, "2")
    assert len(repository.asked) == result.blocks + result.nodes
    assert nodes_fetched(repository) == 1
    assert repository.disk(result.manifest) == raw


def as_file(raw):
    return httpx.Response(200, content=raw)


def table_root(repository, result):
    return manifest.parse(repository.files[f"manifests/{result.manifest.hex()}.json"]).root.digest


def test_blocks_that_were_collected_meanwhile_are_asked_about_and_sent(repository, signatory, raw):
    publish_small(MemoryDisk(raw), signatory, "1")
    lost = block_digest(bytes(raw[:BLOCK]))
    raw[70 * BLOCK] ^= 1

    def lose(request):
        if request.url.path.endswith("/release"):
            repository.faults.clear()
            del repository.frames[lost]

    repository.faults.append(lose)
    result = publish_small(MemoryDisk(raw), signatory, "2")
    assert lost in repository.frames
    assert repository.disk(result.manifest) == raw


def test_few_nodes_are_held_however_large_the_table(repository, signatory, raw, monkeypatch):
    monkeypatch.setattr(earlier_version, "MOST_NODES", 2)
    first = publish_small(MemoryDisk(raw), signatory, "1")
    with repository.client() as rest:
        before = EarlierVersion(rest.fetch, first.manifest, BLOCK)
        for position in (0, 1200, 1, 1201):
            block = (position, block_digest(bytes(raw[position * BLOCK : (position + 1) * BLOCK])))
            assert before.standing([block, (position, block_digest(b"other".ljust(BLOCK, b"\0")))]) == {block[1]}
            assert len(before._nodes) <= 2
        assert not before.standing([(10_000, block[1])])
