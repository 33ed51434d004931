"""Fixtures of the server's tests: a world, a client without sockets, a publisher who may publish."""

import pytest
from in_process import client_of
from server_world import Api, make_world

from oscirc_server.app import create_app
from oscirc_server.reconciling import reconcile


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


@pytest.fixture
def installation(world):
    with world.open() as opened:
        reconcile(opened)
        yield opened


@pytest.fixture
def http(installation):
    with client_of(create_app(installation)) as client:
        yield client


@pytest.fixture
def admin(world, http):
    return Api(http, world.made.admin_token)


@pytest.fixture
def alice(world):
    return world.add_publisher("alice")


@pytest.fixture
def api(world, http, alice):
    """The API as alice's own token sees it."""
    return Api(http, world.token("publish:alice"))
