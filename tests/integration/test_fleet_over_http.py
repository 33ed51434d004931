"""Who counts as one sender of shared boots, on a real connection: its address, or what a proxy on this machine says."""

import httpx
import pytest

from oscirc_blockstore.profile import Profile
from oscirc_server.clock import system_clock

from .test_server_over_http import block as content
from .test_server_over_http import connected, make_world, serving


@pytest.fixture
def published(tmp_path):
    """The URL that runs of alice/debian@1 are sent to, and a run."""
    world = make_world(tmp_path, system_clock)
    alice = world.add_publisher("alice")
    disk = alice.build("debian", [content("a"), content("b")])
    with serving(world.settings) as url:
        with connected(url, world.token("publish:alice")) as api:
            assert api.publish(alice, "debian", "1", disk).status_code == 200
        run = Profile(disk.digest, "boot", 1, (1, 0)).serialise()
        yield f"{url}/api/v1/images/alice/debian/versions/1/profiles/boot/runs", run


def send(published, address, **headers):
    """How many networks there are after a run from this address."""
    url, run = published
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        answer = client.post(url, content=run, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["runs"]


def test_a_sender_cannot_multiply_by_what_it_says(published):
    counts = [send(published, "127.0.0.2", **{"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(4)]
    assert counts == [1, 1, 1, 1]
    assert send(published, "127.0.0.3") == 2


def test_a_proxy_on_this_machine_says_who_sent(published):
    counts = [send(published, "127.0.0.1", **{"X-Forwarded-For": f"203.0.113.{number}"}) for number in (1, 2, 2)]
    assert counts == [1, 2, 2]
    spoofed = {"X-Forwarded-For": "198.51.100.9, 203.0.113.1"}  # what a client invents stands in front of what is true
    assert send(published, "127.0.0.1", **spoofed) == 2
