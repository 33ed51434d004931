"""Two mirrors over real HTTP, one of them bad in every way: no read takes longer than two seconds, every byte is right."""

import contextlib
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import fault_server, machine_time
from support.fault_server import FaultServer
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore.digests import block_path, digest_of
from oscirc_remote import bounded_connections, name_lookups, standing
from oscirc_remote.hedging import HEDGES_AT_FIRST
from oscirc_remote.image import ImageReader
from oscirc_remote.name_lookups import NameLookups
from oscirc_remote.opening import open_source

COUNT = 40
HALF = COUNT // 2 * BLOCK_SIZE
DISK = random.Random(3).randbytes(COUNT * BLOCK_SIZE)
BLOCKS = "blocks/*"
WORST_S = 2.0


@pytest.fixture(scope="module")
def repository():
    repository = RepositorySimulator()
    repository.publish("alice", "debian", "1", DISK)
    return repository


@pytest.fixture
def servers(repository):
    with FaultServer(repository.files) as first, FaultServer(repository.files) as second:
        yield first, second


def read_from_the_first(reader, servers, stop=HALF):
    """Read up to there; the other answers later, so that the first is preferred however busy this machine is."""
    servers[1].inject(BLOCKS, fault_server.slow(0.1))
    reader.read_all(0, stop)
    servers[1].heal()


class Reader:
    """Reads an image and notes how long the longest read took."""

    def __init__(self, repository, cache, urls):
        manifest = next(iter(repository.manifests.values()))
        self.image = ImageReader(manifest, open_source(urls, cache), deadline_s=20)
        self.worst_s = 0.0

    def read(self, offset, size):
        began = machine_time.clock()
        raw = self.image.read(offset, size)
        self.worst_s = max(self.worst_s, machine_time.clock() - began)
        assert raw == DISK[offset : offset + size]

    def read_all(self, start=0, stop=None):
        for offset in range(start, stop or len(DISK), BLOCK_SIZE):
            self.read(offset, BLOCK_SIZE)

    def mirrors(self):
        return self.image.status().cache.mirrors


@pytest.fixture
def open_reader(repository, tmp_path):
    readers = []

    def open_(*urls):
        readers.append(Reader(repository, tmp_path / f"cache{len(readers)}", urls))
        return readers[-1]

    yield open_
    for reader in readers:
        reader.image.close()


BAD = {
    "resets": fault_server.reset(),
    "says nothing": fault_server.stall(),
    "stalls in the body": fault_server.stall(20_000),
    "is slow": fault_server.slow(4.0),
    "drips": fault_server.drip(0.2),
    "is busy": fault_server.status(503, Retry_After="30"),
    "forbids": fault_server.status(403),
    "lags": fault_server.status(404),
    "truncates": fault_server.truncate(20_000),
    "lies": fault_server.flip_bit(),
    "sends another block": fault_server.replace(b"\x28\xb5\x2f\xfd" + bytes(200)),
    "never ends": fault_server.over_long(None),
}


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD.keys())
def test_a_mirror_that_turns_bad_costs_no_read_more_than_two_seconds(servers, open_reader, fault):
    reader = open_reader(*(server.url for server in servers))
    read_from_the_first(reader, servers)
    assert servers[0].count(BLOCKS) > servers[1].count(BLOCKS)
    servers[0].inject(BLOCKS, fault)
    reader.read_all(HALF)
    assert reader.worst_s < WORST_S
    asked_before = servers[0].count(BLOCKS)
    reader.image.read(0, 1)
    assert servers[0].count(BLOCKS) == asked_before


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD.keys())
def test_a_mirror_that_is_bad_from_the_start_costs_no_read_more_than_two_seconds(servers, open_reader, fault):
    servers[0].inject(BLOCKS, fault)
    reader = open_reader(*(server.url for server in servers))
    reader.read_all()
    assert reader.worst_s < WORST_S


@pytest.mark.parametrize("fault", [fault_server.stall(), fault_server.stall(20_000)], ids=["at once", "in the body"])
def test_a_mirror_that_dies_under_many_reads_at_once_costs_none_more_than_two_seconds(servers, open_reader, fault):
    reader = open_reader(*(server.url for server in servers))
    read_from_the_first(reader, servers)
    servers[0].inject(BLOCKS, fault)
    with ThreadPoolExecutor(COUNT // 2) as threads:
        list(threads.map(lambda n: reader.read(n * BLOCK_SIZE, BLOCK_SIZE), range(COUNT // 2, COUNT)))
    assert reader.worst_s < WORST_S
    first, second = reader.mirrors()
    assert first.demoted
    assert second.served >= COUNT // 2


def test_a_mirror_that_flips_a_bit_in_every_tenth_block_is_named_and_the_other_completes(servers, open_reader):
    bad = [block_path(digest_of(DISK[at : at + BLOCK_SIZE])) for at in range(0, len(DISK), 10 * BLOCK_SIZE)]
    for path in bad:
        servers[0].inject(path, fault_server.flip_bit())
    reader = open_reader(*(server.url for server in servers))
    reader.read_all()
    first, second = reader.mirrors()
    assert (first.lied, first.demoted, second.lied) == (True, True, False)
    assert first.demoted_for_s > 50
    assert "127.0.0.1" in first.name
    assert second.served >= COUNT - 1


def test_a_mirror_that_lacks_some_blocks_still_serves_the_others(servers, open_reader, monkeypatch):
    monkeypatch.setattr(standing, "FIRST_DEMOTION_S", 0.0)
    for position in (5, 15, 25):
        servers[0].inject(block_path(digest_of(DISK[position * BLOCK_SIZE :][:BLOCK_SIZE])), fault_server.status(404))
    reader = open_reader(*(server.url for server in servers))
    read_from_the_first(reader, servers, len(DISK))
    assert reader.mirrors()[0].missing == 3
    assert reader.mirrors()[0].served >= COUNT // 2


def test_a_mirror_that_comes_back_is_used_again(servers, open_reader, monkeypatch):
    monkeypatch.setattr(standing, "FIRST_DEMOTION_S", 0.0)
    reader = open_reader(*(server.url for server in servers))
    servers[0].close()
    reader.read_all(0, HALF)
    assert reader.mirrors()[0].demoted
    served = reader.mirrors()[0].served
    servers[0].start()
    reader.read_all(HALF)
    assert not reader.mirrors()[0].demoted
    assert reader.mirrors()[0].served > served
    assert reader.mirrors()[0].requests > 1
    assert reader.worst_s < WORST_S


def test_a_busy_mirror_is_left_in_peace_for_as_long_as_it_asked(servers, open_reader):
    servers[0].inject(BLOCKS, fault_server.status(503, Retry_After="30"), times=1)
    reader = open_reader(*(server.url for server in servers))
    reader.read_all()
    assert 20 < reader.mirrors()[0].demoted_for_s <= 30
    assert servers[0].count(BLOCKS) == 1


def test_when_every_mirror_is_busy_they_are_asked_again(servers, open_reader):
    for server in servers:
        server.inject(BLOCKS, fault_server.status(503, Retry_After="1"), times=1)
    reader = open_reader(*(server.url for server in servers))
    began = time.monotonic()
    reader.read(0, BLOCK_SIZE)
    assert time.monotonic() - began >= 1.0


def test_hedges_are_bounded_when_everything_is_slow(servers, open_reader):
    for server in servers:
        server.inject(BLOCKS, fault_server.every(2, fault_server.slow(0.6)))
    reader = open_reader(*(server.url for server in servers))
    reader.read_all(0, HALF // 2)
    hedges = sum(mirror.hedges for mirror in reader.mirrors())
    assert 0 < hedges <= HEDGES_AT_FIRST + 1


@contextlib.contextmanager
def deaf_port():
    """A port whose queue is full: the kernel drops what asks for a connection, as a firewall does."""
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(3):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]


def test_a_mirror_that_no_packet_reaches_costs_no_read_more_than_two_seconds(servers, open_reader):
    with deaf_port() as port:
        reader = open_reader(f"http://127.0.0.1:{port}/repo", servers[1].url)
        reader.read_all()
        assert reader.worst_s < WORST_S
        assert reader.mirrors()[0].served == 0


def test_a_mirror_whose_name_is_not_found_in_time_costs_no_read_more_than_two_seconds(
    servers, open_reader, monkeypatch
):
    found = threading.Event()

    def resolve(host, port):
        if host == "hangs.example":
            found.wait()
        return name_lookups.system_resolver("127.0.0.1", port)

    lookups = NameLookups(resolve)
    monkeypatch.setattr(name_lookups, "LOOKUPS", lookups)
    try:
        reader = open_reader("http://hangs.example/repo", servers[1].url.replace("127.0.0.1", "localhost"))
        reader.read_all()
        assert reader.worst_s < WORST_S
        assert reader.mirrors()[0].served == 0
        assert not found.is_set()
    finally:
        found.set()
        lookups.settle(20)


SERVER = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from support.fault_server import FaultServer
server = FaultServer(pickle.load(sys.stdin.buffer))
print(server.url, flush=True)
server._thread.join()
"""


@pytest.fixture
def process(repository):
    """A mirror as a process of its own; `.url` is its address."""
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", SERVER, str(tests)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pickle.dump(dict(repository.files), server.stdin)
    server.stdin.close()
    server.url = server.stdout.readline().decode().strip()
    yield server
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_mirror_process_that_ends_while_it_is_read_from_stalls_no_read_for_two_seconds(
    servers, open_reader, process, ending
):
    reader = open_reader(process.url, servers[1].url)
    read_from_the_first(reader, servers, HALF // 2)
    assert reader.mirrors()[0].served > reader.mirrors()[1].served
    ended = threading.Event()

    def read_on(number):
        if number == 3:
            process.send_signal(ending)
            ended.set()
        reader.read(HALF // 2 + number * BLOCK_SIZE, BLOCK_SIZE)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_on, range((len(DISK) - HALF // 2) // BLOCK_SIZE)))
    assert ended.is_set()
    assert reader.worst_s < WORST_S
    assert reader.mirrors()[1].served > 0


def test_connections_that_died_silently_cost_one_short_silence_and_not_one_each(servers, open_reader, monkeypatch):
    monkeypatch.setattr(bounded_connections, "SUSPECT_S", 0.1)
    monkeypatch.setattr(bounded_connections, "KEPT_SILENCE_S", 0.3)
    server, reader = servers[0], open_reader(servers[0].url)
    server.inject(BLOCKS, fault_server.slow(0.05))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: reader.read(n * BLOCK_SIZE, BLOCK_SIZE), range(COUNT // 2)))
    dead = {request.port for request in server.requests}
    assert len(dead) > 1
    server.heal()
    server.inject(BLOCKS, fault_server.on_connections(dead, fault_server.stall()))
    asked = server.count(BLOCKS)
    reader.worst_s = 0
    reader.read_all(HALF)
    assert server.count(BLOCKS) - asked == COUNT // 2 + 1  # one of them had to be asked for twice
    assert reader.worst_s < WORST_S
