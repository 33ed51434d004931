"""Fixtures of the server's tests: a world, a client without sockets, a publisher who may publish.

Making a repository writes keys and syncs; it is done once, and every test works on a copy.
"""

import shutil
from dataclasses import replace

import pytest

from oscirc_server.app import create_app
from oscirc_server.reconciling import reconcile
from oscirc_server.services import lengths

from .in_process import client_of
from .server_world import Api, MovableClock, Publisher, make_world


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A world in which alice is a publisher, her key, and a token of hers."""
    world = make_world(tmp_path_factory.mktemp("template"))
    publisher = world.add_publisher("alice")
    return world, publisher.key, world.token("publish:alice")


@pytest.fixture
def world(template, tmp_path):
    made, _, _ = template
    shutil.copytree(made.data.parent, tmp_path / "world")
    data, keys = tmp_path / "world" / "data", tmp_path / "world" / "offline"
    return replace(made, data=data, keys=keys, clock=MovableClock())


@pytest.fixture
def installation(world):
    with world.open() as opened:
        reconcile(opened)
        yield opened


@pytest.fixture
def no_block_lengths(monkeypatch):
    """Releases list nothing by themselves: for tests that count what is listed."""
    monkeypatch.setattr(lengths, "make", lambda _installation, _manifest: True)


@pytest.fixture
def http(installation):
    with client_of(create_app(installation)) as client:
        yield client


@pytest.fixture
def admin(world, http):
    return Api(http, world.made.admin_token)


@pytest.fixture
def alice(template, world):
    return Publisher("alice", clock=world.clock, key=template[1])


@pytest.fixture
def api(template, http):
    """The API as alice's own token sees it."""
    return Api(http, template[2])
