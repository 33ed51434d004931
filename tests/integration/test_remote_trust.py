"""Authority and freshness over real HTTP: a static mirror that tries each attack, and what still boots."""

import copy
import json
import subprocess
import sys
from datetime import timedelta

import pytest
from support import fault_server
from support.fault_server import FaultServer
from support.repository_simulator import RepositorySimulator, tampered

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import (
    DigestMismatchError,
    DocumentRefusedError,
    ExpiredError,
    NotFoundError,
    OversizedResponseError,
    RollbackError,
    ServerRefusedError,
    SignatureRefusedError,
    UnreachableError,
    UsageError,
)
from oscirc_blockstore.image_index import ImageIndex, ImageVersion
from oscirc_blockstore.manifest import manifest_path
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver

DATE = "2026-01-01T00:00:00Z"
OLD_DISK, NEW_DISK = b"old".ljust(4096, b"."), b"new".ljust(4096, b".")


class Attack:
    """The repository with versions 1 and 2 released; a workstation that resolved 2; the files as of version 1."""

    def __init__(self, directory):
        self.repository = RepositorySimulator()
        self.repository.publish("alice", "debian", "1", OLD_DISK)
        self.old = copy.deepcopy(self.repository.files)
        self.repository.publish("alice", "debian", "2", NEW_DISK)
        self.files = self.repository.files
        self.server = FaultServer(self.files)
        self.remotes = Remotes(directory / "remotes")
        self.remotes.add("home", self.repository.line(self.server.url))
        self.resolver = Resolver(self.remotes)
        self.resolver.resolve("alice/debian")

    def serve(self, files):
        self.files.clear()
        self.files.update(files)

    def newest(self, name):
        """Path of the newest version of a role."""
        paths = [path for path in self.files if path.startswith("metadata/") and path.endswith(f".{name}.json")]
        return max(paths, key=lambda path: int(path.split("/")[1].split(".")[0]))


@pytest.fixture
def attack(tmp_path):
    attack = Attack(tmp_path)
    yield attack
    attack.server.close()


def rolled_back(attack):
    attack.serve(attack.old)


def frozen(attack):
    attack.repository.timestamp.expires = attack.repository.now - timedelta(days=1)
    attack.repository.write_timestamp()
    attack.repository.timestamp.version += 1
    attack.repository.write_timestamp()


def thirteen_months_later(attack):
    past = attack.repository.now - timedelta(days=30)
    for role in (attack.repository.targets, attack.repository.roles["alice"]):
        role.expires = past
    attack.repository.release("targets", "alice")


def tampered_role(attack):
    attack.repository.release("alice")
    attack.files[attack.newest("alice")] = tampered(attack.files[attack.newest("alice")], version=99)


def tampered_timestamp(attack):
    attack.files["metadata/timestamp.json"] = tampered(attack.files["metadata/timestamp.json"], version=99)


def foreign_repository(attack):
    other = RepositorySimulator()
    other.publish("alice", "debian", "3", b"evil".ljust(4096))
    attack.serve({**attack.files, "metadata/timestamp.json": other.files["metadata/timestamp.json"]})


def index_with_a_wrong_byte(attack):
    attack.repository.publish("alice", "debian", "3", b"newer".ljust(4096))
    path = max(
        (path for path in attack.files if path.endswith(".debian.json")), key=lambda path: len(attack.files[path])
    )
    attack.files[path] = attack.files[path].replace(b"stable", b"stabie")


def index_of_another_publisher(attack):
    foreign = ImageIndex("bob", "debian").with_version(ImageVersion("1", digest_of(b"x"), DATE)).serialise()
    attack.repository.put_index(attack.repository.indexes["alice/debian.json"], raw=foreign)


def index_that_is_not_canonical(attack):
    index = attack.repository.indexes["alice/debian.json"]
    attack.repository.put_index(index, raw=json.dumps(json.loads(index.serialise()), indent=1).encode())


def index_that_forgets(attack):
    attack.repository.put_index(ImageIndex("alice", "debian", (ImageVersion("3", digest_of(b"x"), DATE),)))


def manifest_that_is_not_canonical(attack):
    honest = next(iter(attack.repository.manifests.values())).serialise()
    crafted = honest.replace(b'","', b'", "', 1)
    attack.files[manifest_path(digest_of(crafted))] = crafted
    index = attack.repository.indexes["alice/debian.json"]
    index = index.with_version(ImageVersion("3", digest_of(crafted), DATE)).with_channel("stable", "3")
    attack.repository.put_index(index)


def manifest_with_a_wrong_byte(attack):
    attack.repository.publish("alice", "debian", "3", b"newer".ljust(4096))
    attack.server.inject("manifests/*", fault_server.flip_bit())


def manifest_of_another_image(attack):
    foreign = attack.repository.publish("bob", "arch", "1", b"other".ljust(4096))
    index = attack.repository.indexes["alice/debian.json"]
    version = ImageVersion("3", digest_of(foreign.serialise()), DATE)
    attack.repository.put_index(index.with_version(version).with_channel("stable", "3"))


def endless_timestamp(attack):
    attack.server.inject("metadata/timestamp.json", fault_server.over_long(None))


def huge_timestamp(attack):
    attack.server.inject("metadata/timestamp.json", fault_server.over_long())


def broken_off(attack):
    attack.server.inject("metadata/timestamp.json", fault_server.truncate())


def unavailable(attack):
    attack.server.inject("*", fault_server.status(503))


def switched_off(attack):
    attack.server.close()


ATTACKS = {
    rolled_back: RollbackError,
    frozen: ExpiredError,
    thirteen_months_later: ExpiredError,
    tampered_role: SignatureRefusedError,
    tampered_timestamp: SignatureRefusedError,
    foreign_repository: SignatureRefusedError,
    index_with_a_wrong_byte: DigestMismatchError,
    index_of_another_publisher: DocumentRefusedError,
    index_that_is_not_canonical: DocumentRefusedError,
    index_that_forgets: DocumentRefusedError,
    manifest_that_is_not_canonical: DocumentRefusedError,
    manifest_with_a_wrong_byte: DigestMismatchError,
    manifest_of_another_image: DocumentRefusedError,
    endless_timestamp: OversizedResponseError,
    huge_timestamp: OversizedResponseError,
    broken_off: UnreachableError,
    unavailable: ServerRefusedError,
    switched_off: UnreachableError,
}


@pytest.mark.parametrize(("make", "error"), ATTACKS.items(), ids=[make.__name__ for make in ATTACKS])
def test_it_is_refused_and_what_was_verified_before_boots(attack, make, error):
    make(attack)
    with pytest.raises(error) as refusal:
        attack.resolver.resolve("alice/debian")
    assert str(refusal.value)
    booted = attack.resolver.resolve_for_boot("alice/debian")
    assert (booted.version_label, booted.fresh) == ("2", False)
    assert "verified today" in booted.warnings[0]


def test_a_workstation_that_never_saw_the_repository_gets_nothing_from_an_expired_one(attack, tmp_path):
    frozen(attack)
    remotes = Remotes(tmp_path / "fresh")
    with pytest.raises(ExpiredError, match="your clock says"):
        remotes.add("home", attack.repository.line(attack.server.url))
    assert remotes.list() == ()


@pytest.mark.parametrize("text", ["../alice/debian", "alice/..", "alice/debian@../../x", "?lice/debian", "alice/*"])
def test_names_that_climb_or_glob_never_reach_the_server(attack, text):
    before = len(attack.server.requests)
    with pytest.raises((UsageError, NotFoundError)):
        attack.resolver.resolve_for_boot(text)
    assert len(attack.server.requests) == before


def test_processes_that_resolve_at_once_all_succeed(attack):
    script = """
import sys
from pathlib import Path
from oscirc_remote.remotes import Remotes
from oscirc_remote.resolving import Resolver
for _ in range(5):
    assert Resolver(Remotes(Path(sys.argv[1]))).resolve("alice/debian").fresh
"""
    arguments = [sys.executable, "-c", script, str(attack.remotes.base)]
    processes = [subprocess.Popen(arguments) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
