"""Mirrors are asked for one file, by this server alone, and never at its own doors."""

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest

from oscirc_blockstore.repository_facts import RepositoryFacts
from oscirc_server.mirror_probes import MirrorProbes, MirrorState

from .server_world import PASSPHRASE

MIRRORS = ("https://a.example/r", "http://b.example:8080")


@dataclass
class Network:
    """Names and answers, without a socket."""

    statuses: dict[str, int] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, request):
        self.asked.append(f"{request.method} {request.url}")
        assert "cookie" not in request.headers
        status = self.statuses.get(request.url.host)
        if status is None:
            raise httpx.ConnectError("nobody is there")
        return httpx.Response(status, headers={"Location": "http://elsewhere.example/"})

    async def resolve(self, host, _port):
        return [self.addresses.get(host, "192.0.2.1")]


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def probes(world, installation, network):
    world.administration.set_repository_facts(RepositoryFacts("Test", mirrors=MIRRORS), world.keys, PASSPHRASE)
    return MirrorProbes(installation, transport=httpx.MockTransport(network), resolve=network.resolve)


def ask(probes):
    asyncio.run(probes.ask_all(asyncio.Event()))
    return [state.answer for state in probes.states()]


def test_what_was_never_asked_is_told_so(probes, network):
    assert probes.states() == [MirrorState(url) for url in MIRRORS]
    assert not network.asked


def test_only_the_timestamps_of_named_mirrors_are_asked_for(probes, network, world):
    network.statuses = {"a.example": 200}
    assert ask(probes) == ["answers", "does not answer"]
    assert network.asked == [f"HEAD {url}/metadata/timestamp.json" for url in MIRRORS]
    assert {state.asked_s for state in probes.states()} == {int(world.clock())}


def test_a_redirect_is_an_error_and_not_followed(probes, network):
    network.statuses = {"a.example": 302, "b.example": 500}
    assert ask(probes) == ["answers with an error"] * 2
    assert len(network.asked) == 2


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "::", "224.0.0.1", "::ffff:127.0.0.1"]
)
def test_a_name_that_leads_to_this_machine_is_not_asked(probes, network, address):
    network.addresses = {"a.example": address}
    assert ask(probes)[0] == "not asked: a local address"
    assert not [url for url in network.asked if "a.example" in url]


def test_a_name_that_leads_nowhere_does_not_answer(installation, probes, network):
    async def nobody(_host, _port):
        raise OSError("unknown")

    lost = MirrorProbes(installation, transport=httpx.MockTransport(network), resolve=nobody)
    assert ask(lost) == ["does not answer"] * 2
    assert not network.asked


def test_a_stop_ends_the_round_and_the_asking(probes, network):
    stopped = asyncio.Event()
    stopped.set()

    async def run():
        await probes.run(stopped)
        await probes.ask_all(stopped)

    asyncio.run(run())
    assert not network.asked
