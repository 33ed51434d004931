"""The read path against a hostile static mirror over real HTTP: whatever it sends, a reader gets the disk's bytes or an error."""

import random
import threading

import pytest
from support import fault_server
from support.fault_server import FaultServer
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore import frame
from oscirc_blockstore.digests import block_path, digest_of
from oscirc_blockstore.errors import (
    DeadlineExceededError,
    IntegrityError,
    NotServedError,
    TransportError,
    UnreachableError,
)
from oscirc_blockstore.table import NODE_SIZE, entry
from oscirc_remote.image import ImageReader
from oscirc_remote.opening import open_image, open_source
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver

DISK = random.Random(1).randbytes(20 * BLOCK_SIZE)
BLOCKS = "blocks/*"
SHORT_S = 1.5  # for reads that are to fail at their deadline, and for a busy machine to have been answered by then


@pytest.fixture(scope="module")
def repository():
    repository = RepositorySimulator()
    repository.publish("alice", "debian", "1", DISK)
    return repository


@pytest.fixture
def manifest(repository):
    return next(iter(repository.manifests.values()))


@pytest.fixture
def servers(repository):
    """The repository and a mirror of it."""
    with FaultServer(repository.files) as first, FaultServer(repository.files) as second:
        yield first, second


@pytest.fixture
def open_reader(tmp_path, manifest):
    readers = []

    def open_(*servers, deadline_s=10.0, cache="cache", **options):
        source = open_source([server.url for server in servers], tmp_path / cache, **options)
        readers.append(ImageReader(manifest, source, deadline_s=deadline_s))
        return readers[-1]

    yield open_
    for reader in readers:
        reader.close()


def block_of(position):
    raw = DISK[position * BLOCK_SIZE : (position + 1) * BLOCK_SIZE]
    return raw, block_path(digest_of(raw))


FAULTS = {
    "one flipped bit": fault_server.flip_bit(),
    "a flipped bit in the header": fault_server.flip_bit(5),
    "a swapped block": fault_server.replace(frame.encode(block_of(19)[0])),
    "a lying frame": fault_server.replace(b"\x28\xb5\x2f\xfd" + bytes(200)),
    "a shortened frame": fault_server.shorten(),
    "a truncated frame": fault_server.truncate(),
    "a padded frame": fault_server.pad(),
    "an over-long body": fault_server.over_long(),
    "an endless body": fault_server.over_long(None),
    "a decompression bomb": fault_server.replace(frame.encode(bytes(1 << 20))),
    "an unstated bomb": fault_server.replace(b"\x28\xb5\x2f\xfd\x00\x58" + b"\x53\x00\x00" + bytes(16)),
    "a page of an error": fault_server.replace(b"<html>200 not found</html>"),
    "404": fault_server.status(404),
    "403": fault_server.status(403),
    "503": fault_server.status(503),
    "a redirect to nowhere": fault_server.redirect("http://127.0.0.1:1/"),
    "a redirect to itself": fault_server.redirect("/repo/manifests/none"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_with_a_second_mirror_the_disk_is_read_all_the_same(servers, open_reader, fault):
    servers[0].inject(BLOCKS, fault)
    reader = open_reader(*servers)
    assert reader.read(0, len(DISK)) == DISK
    status = reader.status()
    first, second = status.cache.mirrors
    assert first.demoted
    assert first.bad_blocks + first.failures + first.missing > 0
    assert second.served == 21


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_with_none_an_error_is_raised_and_nothing_is_kept(servers, open_reader, fault, tmp_path):
    servers[0].inject(BLOCKS, fault)
    reader = open_reader(servers[0], deadline_s=SHORT_S)
    with pytest.raises((TransportError, IntegrityError)) as refusal:
        reader.read(0, 10)
    assert servers[0].url in str(refusal.value) or "127.0.0.1" in str(refusal.value)
    assert [path for path in (tmp_path / "cache" / "blocks").rglob("*") if path.is_file()] == []
    servers[0].heal()
    reader._deadline_s = 20.0
    assert reader.read(0, 10) == DISK[:10]


@pytest.mark.parametrize("fault", [fault_server.stall(), fault_server.stall(100)], ids=["at once", "in the middle"])
def test_a_server_that_stalls_is_bounded_by_the_deadline(servers, open_reader, fault):
    servers[0].inject(BLOCKS, fault)
    reader = open_reader(servers[0], deadline_s=0.2)
    with pytest.raises(DeadlineExceededError):
        reader.read(0, 10)


def test_a_poisoned_cache_on_the_way_is_passed(servers, open_reader):
    servers[0].inject(BLOCKS, fault_server.unless_query(fault_server.flip_bit(), "bad="))
    reader = open_reader(servers[0])
    assert reader.read(0, len(DISK)) == DISK
    assert reader.status().cache.mirrors[0].bad_blocks == 21
    assert all(request.headers["accept-encoding"] == "identity" for request in servers[0].requests)


def test_a_tampered_node_is_refused_though_every_block_is_right(servers, open_reader, manifest, repository):
    path = block_path(manifest.root.digest)
    node = bytearray(frame.decode(repository.files[path], NODE_SIZE))
    node[:32], node[32:64] = node[32:64], node[:32]
    servers[0].inject(path, fault_server.replace(frame.encode(bytes(node))))
    reader = open_reader(servers[0])
    with pytest.raises(IntegrityError):
        reader.read(0, 10)


def test_a_node_served_as_a_block_and_a_block_as_a_node_are_refused(servers, open_reader, manifest, repository):
    node_path = block_path(manifest.root.digest)
    raw, block = block_of(0)
    servers[0].inject(block, fault_server.replace(repository.files[node_path]))
    reader = open_reader(servers[0])
    with pytest.raises(IntegrityError):
        reader.read(0, 10)
    servers[0].inject(node_path, fault_server.replace(repository.files[block]))
    with pytest.raises(IntegrityError):
        open_reader(servers[0], cache="other").read(0, 10)
    assert raw != entry(frame.decode(repository.files[node_path], NODE_SIZE), 0)


def test_one_bad_block_does_not_spoil_the_others(servers, open_reader):
    servers[0].inject(block_of(3)[1], fault_server.flip_bit())
    reader = open_reader(servers[0])
    assert reader.read(0, 3 * BLOCK_SIZE) == DISK[: 3 * BLOCK_SIZE]
    with pytest.raises(IntegrityError):
        reader.read(3 * BLOCK_SIZE, 1)
    assert reader.read(4 * BLOCK_SIZE, 16 * BLOCK_SIZE) == DISK[4 * BLOCK_SIZE :]


def test_a_missing_block_is_said_to_be_missing(servers, open_reader):
    servers[0].inject(block_of(3)[1], fault_server.status(404))
    with pytest.raises(NotServedError):
        open_reader(servers[0]).read(3 * BLOCK_SIZE, 1)


def test_a_read_waits_while_the_server_is_restarted_and_then_goes_on(servers, open_reader):
    server, reader = servers[0], open_reader(servers[0])
    assert reader.read(0, BLOCK_SIZE) == DISK[:BLOCK_SIZE]
    server.inject(BLOCKS, fault_server.stall(100))
    got = []
    thread = threading.Thread(target=lambda: got.append(reader.read(5 * BLOCK_SIZE, BLOCK_SIZE)))
    thread.start()
    server.wait_until_asked(block_of(5)[1])
    server.close()  # killed in the middle of the body
    server.heal()
    server.start()
    thread.join(20)
    assert got == [DISK[5 * BLOCK_SIZE : 6 * BLOCK_SIZE]]


def test_a_read_without_any_server_fails_at_the_deadline_and_succeeds_later(servers, open_reader):
    server, reader = servers[0], open_reader(servers[0], deadline_s=SHORT_S)
    server.close()
    with pytest.raises(UnreachableError) as failure:
        reader.read(0, 10)
    assert failure.value.retryable
    server.start()
    reader._deadline_s = 20.0
    assert reader.read(0, 10) == DISK[:10]


def test_what_was_read_once_is_read_offline_also_by_the_next_process(servers, open_reader):
    assert open_reader(servers[0]).read(0, len(DISK)) == DISK
    servers[0].close()
    second = open_reader(servers[0])
    assert second.read(0, len(DISK)) == DISK
    assert second.status().requests == 0
    assert second.status().safe_to_unplug


def test_damage_in_the_cache_is_healed_from_the_server(servers, open_reader, tmp_path):
    open_reader(servers[0]).read(0, len(DISK))
    damaged = 0
    for path in (tmp_path / "cache" / "blocks").glob("??/*"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        damaged += 1
    fresh = open_reader(servers[0])
    assert fresh.read(0, len(DISK)) == DISK
    assert fresh.status().cache.damaged == damaged == 21
    again = open_reader(servers[0])
    assert again.read(0, len(DISK)) == DISK
    assert again.status().requests == 0


def test_errors_with_endless_bodies_cost_no_memory(servers, open_reader):
    """The fault that ruled out a library client: it collected the body of an error without limit."""

    def endless_error(answer):
        answer.status, answer.declared = 500, None
        answer.body = iter(lambda: bytes(1 << 16), None)

    servers[0].inject(BLOCKS, endless_error)
    reader = open_reader(servers[0], deadline_s=SHORT_S)
    with pytest.raises(TransportError):
        reader.read(0, 10)
    mirror = reader.status().cache.mirrors[0]
    assert mirror.received_bytes < mirror.requests * (1 << 20)


def test_resolved_over_http_and_opened_in_one_call(servers, repository, tmp_path):
    remotes = Remotes(tmp_path / "remotes")
    remotes.add("home", repository.line(servers[0].url))
    remotes.set_mirrors("home", (servers[1].url,))
    resolved = Resolver(remotes).resolve("alice/debian")
    servers[0].close()
    reader = open_image(resolved, tmp_path / "cache")
    assert reader.read(BLOCK_SIZE - 5, 10) == DISK[BLOCK_SIZE - 5 : BLOCK_SIZE + 5]
    reader.close()
    booted = Resolver(remotes).resolve_for_boot("alice/debian")
    assert booted.fresh  # through the mirror
    servers[1].close()
    assert not Resolver(remotes).resolve_for_boot("alice/debian").fresh
