"""A reader's memory stays bounded on a disk that is a thousand times larger, and it opens at once."""

import json
import random
import subprocess
import sys

import pytest
from support.fault_server import FaultServer
from support.repository_simulator import RepositorySimulator

BLOCK_SIZE = 256 * 1024
TEBIBYTE = 1 << 40
DATA_BLOCKS = 4096  # one GiB
LIMIT_MIB = 200
LEVELS, GUESSED_NEIGHBOURS = 3, 3

READER = """
import json, random, sys, threading
from pathlib import Path
from oscirc_blockstore.manifest import parse
from oscirc_remote.image import ImageReader
from oscirc_remote.opening import open_source

url, cache, manifest, seed = sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes(), int(sys.argv[4])
image = ImageReader(parse(manifest), open_source([url], Path(cache)))
image.read(0, 4096)
opened_requests = image.status().requests
positions = random.Random(seed).sample(range(image.size // 262144), 4096)
wrong = []

def read(part):
    chance = random.Random(part)
    for position in positions[part:1600:4]:
        if image.read(position * 262144 + 8 * chance.randrange(1000), 8) != position.to_bytes(8, "big"):
            wrong.append(position)
        offset = chance.randrange(image.size)
        data = image.read(offset, 131072)
        if len(data) != min(131072, image.size - offset):
            wrong.append(offset)

threads = [threading.Thread(target=read, args=(part,)) for part in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
status = image.status()
image.close()
# not ru_maxrss: across exec that keeps the peak of the process that started this one
peak_mib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"opened_requests": opened_requests, "peak_mib": peak_mib, "wrong": wrong, "fetched": status.cache.fetched_blocks}))
"""


@pytest.fixture(scope="module")
def image():
    repository = RepositorySimulator()
    positions = random.Random(3).sample(range(TEBIBYTE // BLOCK_SIZE), DATA_BLOCKS)
    disk = {position: position.to_bytes(8, "big") * (BLOCK_SIZE // 8) for position in positions if position}
    manifest = repository.publish("alice", "huge", "1", disk, disk_size=TEBIBYTE, block_size=BLOCK_SIZE)
    return repository, manifest


def test_random_reads_over_a_sparse_tebibyte_stay_small(image, tmp_path, record_property):
    repository, manifest = image
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest.serialise())
    with FaultServer(repository.files) as server:
        reader = subprocess.run(
            [sys.executable, "-c", READER, server.url, str(tmp_path / "cache"), str(path), "3"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    result = json.loads(reader.stdout)
    print(result)
    record_property("peak_mib", result["peak_mib"])
    assert result["wrong"] == []
    assert result["fetched"] >= 1500
    assert result["peak_mib"] < LIMIT_MIB
    assert result["opened_requests"] <= LEVELS + GUESSED_NEIGHBOURS  # the table is not read, but the way to one block
