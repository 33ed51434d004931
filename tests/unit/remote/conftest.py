from datetime import UTC, datetime, timedelta

import pytest
from support.repository_simulator import RepositorySimulator, SimulatedDocuments

from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver
from oscirc_remote.session import Session

HOME = "http://home.example/repo"
MIRROR = "http://mirror.example/repo"
DISK = b"a small disk".ljust(4096, b".")


class World:
    """Repositories by base URL, a workstation that knows them, and a calendar for what is told (not for TUF's)."""

    def __init__(self, directory):
        self.remotes = Remotes(directory / "remotes")
        self.places: dict[str, SimulatedDocuments] = {}
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.repository = RepositorySimulator(mirrors=(MIRROR,))
        self.home = self.serve(HOME, self.repository.files)
        self.mirror = self.serve(MIRROR, self.repository.files)

    def serve(self, url, files):
        self.places[url] = SimulatedDocuments(url, files)
        return self.places[url]

    def open(self, url):
        return self.places[url]

    def add(self, name="home", url=HOME, repository=None):
        return self.remotes.add(name, (repository or self.repository).line(url), open_documents=self.open)

    def session(self, name="home"):
        return Session(self.remotes.load(name), open_documents=self.open)

    def resolver(self, days_later=0):
        return Resolver(self.remotes, self.open, lambda: self.now + timedelta(days=days_later))


@pytest.fixture
def world(tmp_path):
    """A repository with alice/debian@1, added as the remote `home`."""
    world = World(tmp_path)
    world.repository.publish("alice", "debian", "1", DISK)
    world.add()
    return world


@pytest.fixture
def empty_world(tmp_path):
    """The same without any remote added."""
    world = World(tmp_path)
    world.repository.publish("alice", "debian", "1", DISK)
    return world
