"""One download for many readers: threads and processes that share a cache, and a server that counts."""

import hashlib
import json
import random
import signal
import subprocess
import sys

import pytest
from support import fault_server
from support.fault_server import FaultServer
from support.repository_simulator import BLOCK_SIZE, RepositorySimulator

from oscirc_blockstore.digests import block_path, digest_of

DISK = random.Random(2).randbytes(2 * BLOCK_SIZE)
COLD = block_path(digest_of(DISK[:BLOCK_SIZE]))
READERS = 8

READER = """
import hashlib, json, sys, threading
from pathlib import Path
from oscirc_blockstore.manifest import parse
from oscirc_remote.image import ImageReader
from oscirc_remote.opening import open_source

url, cache, manifest, readers, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
source = open_source([url], Path(cache))
image = ImageReader(parse(bytes.fromhex(manifest)), source, deadline_s=float(sys.argv[6]))
image.read(65536 + 5, 1)  # the table, and another block
waiting = threading.Event()
count = source._counters.add

def counting(name, amount=1):
    count(name, amount)
    if name == "lock_waits":
        print("waiting", flush=True)

source._counters.add = counting
got = {}

def read(number):
    got[number] = hashlib.sha256(image.read(number * step, step)).hexdigest()

threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
print("reading", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(got), flush=True)
image.close()
"""


@pytest.fixture(scope="module")
def repository():
    repository = RepositorySimulator()
    repository.publish("alice", "debian", "1", DISK)
    return repository


@pytest.fixture
def server(repository):
    with FaultServer(repository.files) as server:
        yield server


@pytest.fixture
def start(repository, server, tmp_path):
    """Starts a process with eight readers of the cold block at different offsets."""
    processes = []

    def start_(deadline_s=20.0):
        manifest = next(iter(repository.manifests.values())).serialise().hex()
        arguments = [server.url, str(tmp_path), manifest, str(READERS), str(BLOCK_SIZE // READERS), str(deadline_s)]
        process = subprocess.Popen([sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "reading\n"
        return process

    yield start_
    for process in processes:
        process.kill()
        process.communicate()


def digests():
    step = BLOCK_SIZE // READERS
    return {str(n): hashlib.sha256(DISK[n * step : (n + 1) * step]).hexdigest() for n in range(READERS)}


def test_sixteen_readers_in_two_processes_cause_one_download(server, start):
    server.inject(COLD, fault_server.stall(100))
    first = start()
    server.wait_until_asked(COLD)
    second = start()
    assert second.stdout.readline() == "waiting\n"
    server.heal()
    assert json.loads(first.stdout.readline()) == digests()
    assert json.loads(second.stdout.readline()) == digests()
    assert server.count(COLD) == 1
    assert server.counts().most_common(1)[0][1] == 1  # nor was any other block or node had twice


def test_a_process_that_is_killed_in_the_middle_leaves_the_block_to_the_next(server, start, tmp_path):
    server.inject(COLD, fault_server.stall(100))
    first = start()
    server.wait_until_asked(COLD)
    second = start()
    assert second.stdout.readline() == "waiting\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    server.wait_until_asked(COLD, 2)  # the kernel gave the lock to the second one, which asks for itself
    server.heal()
    assert json.loads(second.stdout.readline()) == digests()


def test_a_process_that_is_stopped_does_not_hold_up_the_other_for_ever(server, start):
    server.inject(COLD, fault_server.stall(100), times=1)
    first = start()
    server.wait_until_asked(COLD)
    first.send_signal(signal.SIGSTOP)
    second = start(deadline_s=8.0)
    assert second.stdout.readline() == "waiting\n"
    assert json.loads(second.stdout.readline()) == digests()  # by its own download, after half of its deadline
    assert server.count(COLD) == 2
    first.send_signal(signal.SIGCONT)
