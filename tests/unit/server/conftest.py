"""Fixtures of the server's tests: a world, a client without sockets, a publisher who may publish.

Making a repository writes keys and syncs; it is done once, and every test works on a copy. What goes through an
installation is tried twice: on SQLite with a directory, and on PostgreSQL with a bucket, both really running. Of a test
that is given many values the everyday suite tries the first one there, and `make test-long` the others; of what asks
little of database and store in ways of its own (files not in `EVERYDAY`) all.
"""

import shutil
from dataclasses import replace

import pytest
from support.places import BOTH, POSTGRESQL, SQLITE, OneDirectory, Shared

from oscirc_server import app
from oscirc_server.app import create_app
from oscirc_server.reconciling import reconcile
from oscirc_server.services import lengths

from .in_process import client_of
from .server_world import Api, MovableClock, Publisher, make_world

EVERYDAY = frozenset(
    f"test_{name}.py"
    for name in (
        *("accelerators_of_versions", "direct_reads", "drafts", "job_worker", "reconciling", "recovery", "releases"),
        *("removing", "renewal", "repository", "resigning", "several_servers", "uploads", "versions_of_images"),
        "pages_of_lists",
    )
)


def pytest_collection_modifyitems(items):
    tried = set()
    for item in items:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if given.get("new_place") == POSTGRESQL:
            if item.path.name not in EVERYDAY or (len(given) > 1 and item.function in tried):
                item.add_marker(pytest.mark.long)
            tried.add(item.function)


@pytest.fixture(scope="session", params=BOTH)
def new_place(request):
    """Gives a new, empty place of this kind for a data directory."""
    if request.param == SQLITE:
        return OneDirectory
    cluster, server = request.getfixturevalue("postgresql"), request.getfixturevalue("s3")
    return lambda _data: Shared.new(cluster, server)


@pytest.fixture(scope="session")
def template(tmp_path_factory, new_place):
    """A world in which alice is a publisher, her key, and a token of hers."""
    directory = tmp_path_factory.mktemp("template")
    world = make_world(directory, place=new_place(directory / "data"))
    publisher = world.add_publisher("alice")
    return world, publisher.key, world.token("publish:alice")


@pytest.fixture
def world(template, tmp_path):
    made, _, _ = template
    shutil.copytree(made.data.parent, tmp_path / "world")
    data, keys = tmp_path / "world" / "data", tmp_path / "world" / "offline"
    place = made.place.copy(data)
    yield replace(made, data=data, keys=keys, clock=MovableClock(), place=place)
    place.close()


@pytest.fixture
def installation(world):
    with world.open() as opened:
        reconcile(opened)
        yield opened


@pytest.fixture
def no_block_lengths(monkeypatch):
    """Releases list nothing by themselves: for tests that count what is listed."""
    monkeypatch.setattr(lengths, "make", lambda _installation, _manifest: True)


@pytest.fixture(autouse=True)
def no_upkeep():
    """Applications do nothing by themselves, at whatever moment it would be: tests call what they mean by its name."""

    async def rest(_installation, stop):
        await stop.wait()

    with pytest.MonkeyPatch.context() as patched:  # tests undo what they change themselves, and go on
        for name in ("keep_up", "keep_collected"):
            patched.setattr(app, name, rest)
        yield


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
