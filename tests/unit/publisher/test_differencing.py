"""Delta packs put beside versions, sent once."""

import hashlib
import json
import random

import httpx
import pytest

from oscirc_blockstore import delta, frame
from oscirc_blockstore.digests import ZERO_DIGEST, digest_of
from oscirc_blockstore.errors import DigestMismatchError, DocumentRefusedError
from oscirc_publisher.accelerating import VersionName, listed_accelerators
from oscirc_publisher.differencing import add_pack
from oscirc_publisher.rest import Patience, RestClient
from tests.unit.blockstore.versions import BLOCK, Store

NAME = VersionName("alice", "debian", "2")


def answer(document):
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps(document).encode()))


class Server:
    """The part of the API that lists and takes accelerators."""

    def __init__(self):
        self.listed, self.received = [], []

    def __call__(self, request):
        if request.method == "GET":
            return answer({"manifest": "", "accelerators": self.listed})
        raw = request.read()
        assert hashlib.sha256(raw).hexdigest() == request.url.params["sha256"]
        self.received.append((request.url.path, raw))
        kind, name = request.url.path.split("/")[-2:]
        self.listed.append(
            {
                "kind": kind,
                "name": name,
                "sha256": hashlib.sha256(raw).hexdigest(),
                "length": len(raw),
                "index_length": delta.index_length(raw),
            }
        )
        return answer({})


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def client(server):
    with RestClient("http://test", token="t", patience=Patience(()), transport=httpx.MockTransport(server)) as client:
        yield client


@pytest.fixture
def pair():
    store, chance = Store(), random.Random(2)
    raw = chance.randbytes(BLOCK)
    return store, store.version([raw]), store.version([b"edited" + raw[6:]]), b"edited" + raw[6:]


def added(client, pair, **options):
    store, old, new, _ = pair
    return add_pack(client, NAME, "1", old, new, store.load, lambda _, raw: len(frame.encode(raw)), **options)


def test_a_pack_is_sent_once_unless_it_is_to_be_made_again(client, server, pair):
    first = added(client, pair)
    assert (first.made, first.records, first.blocks) == (True, 1, 1)
    assert first.pack_bytes == len(server.received[0][1]) < first.whole_bytes
    again = added(client, pair)
    assert (again.made, again.pack_bytes, len(server.received)) == (False, first.pack_bytes, 1)
    assert added(client, pair, again=True).made
    assert server.received[0] == server.received[1]


def test_new_blocks_come_from_the_disk_at_hand_and_are_checked(client, pair):
    store, _, new, raw = pair
    del store.held[digest_of(raw)]
    assert added(client, pair, block_at={0: raw}.get).records == 1
    with pytest.raises(DigestMismatchError):
        added(client, pair, block_at=lambda _: bytes(BLOCK), again=True)
    assert new.digest != ZERO_DIGEST


@pytest.mark.parametrize("change", [{"kind": 1}, {"name": None}, {"length": "1"}, {"sha256": "00"}])
def test_a_list_that_makes_no_sense_is_refused(client, server, change):
    good = {"kind": "delta", "name": "from-1", "sha256": "00" * 32, "length": 9, "index_length": 1}
    server.listed.append(good)
    assert listed_accelerators(client, NAME)[0].length == 9
    server.listed.append({**good, **change})
    with pytest.raises(DocumentRefusedError):
        listed_accelerators(client, NAME)
