"""Database and store are both older than what readers know: a mirror, a copy or a reader gives it back, verified."""

import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.repository_simulator import SimulatedDocuments
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot

from oscirc_blockstore.errors import NotFoundError, OscircError, RollbackError, UsageError
from oscirc_remote.remotes import Remotes
from oscirc_remote.session import Session
from oscirc_server.app import create_app
from oscirc_server.elsewhere import MirrorElsewhere, ReaderElsewhere, TreeElsewhere, elsewhere
from oscirc_server.reconciling import reconcile

from .in_process import client_of
from .server_world import Api, MovableClock, block, fork, make_world
from .tuf_client import updater


def release(world, publisher, version):
    with world.open() as installation:
        reconcile(installation)
        with client_of(create_app(installation)) as http:
            disk = publisher.build("debian", [block(version)])
            return Api(http, world.made.admin_token).publish(publisher, "debian", version, disk)


def documents_of(tree):
    files = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    return lambda url: SimulatedDocuments(url, files)


def refreshed(world, state):
    client = updater(world.tree, state, (world.tree / "metadata/1.root.json").read_bytes())
    client.refresh()
    return client._trusted_set.snapshot.version


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository that was put back to version 1 with all its files; what it was is in `mirror` and with a reader."""
    tmp_path = tmp_path_factory.mktemp("lost")
    world = make_world(tmp_path / "world", MovableClock(time.time()))
    alice = world.add_publisher("alice")
    assert release(world, alice, "1").status_code == 200
    shutil.copytree(world.data, tmp_path / "backup")
    for version in ("2", "3"):
        assert release(world, alice, version).status_code == 200
    mirror = tmp_path / "mirror"
    shutil.copytree(world.tree, mirror)
    remotes = Remotes(tmp_path / "remotes")
    line = f"http://repository.test/r#sha256={world.made.root_digest}"
    remote = remotes.add("home", line, open_documents=documents_of(mirror))
    with Session(remote, open_documents=documents_of(mirror)) as session:
        assert len(session.image_index("alice", "debian").versions) == 3
    seen = refreshed(world, tmp_path / "state")
    shutil.rmtree(world.data)
    shutil.copytree(tmp_path / "backup", world.data)
    with world.open() as installation:
        reconcile(installation)
    return SimpleNamespace(root=tmp_path, world=world, alice=alice, seen=seen)


@pytest.fixture
def lost(template, tmp_path):
    """A copy of it."""
    root = tmp_path / "lost"
    shutil.copytree(template.root, root)
    data = root / "world" / "data"
    place = template.world.place.copy(data)
    return SimpleNamespace(
        world=replace(template.world, data=data, keys=root / "world" / "offline", place=place),
        alice=fork(template.alice),
        seen=template.seen,
        mirror=root / "mirror",
        remote=Remotes(root / "remotes").load("home"),
        state=root / "state",
    )


def index_of(lost):
    with Session(lost.remote, open_documents=documents_of(lost.world.tree)) as session:
        return session.image_index("alice", "debian")


@pytest.mark.parametrize("source", ["mirror", "reader"])
def test_what_readers_have_seen_is_taken_over_and_no_number_used_again(lost, source):
    with pytest.raises(RepositoryError):
        refreshed(lost.world, lost.state)
    with pytest.raises(RollbackError):
        index_of(lost)
    place = lost.mirror if source == "mirror" else lost.remote.directory
    brought = lost.world.administration.adopt(str(place))
    assert brought.complete
    assert brought.snapshot_version == lost.seen
    assert refreshed(lost.world, lost.state) > lost.seen
    assert [item.label for item in index_of(lost).versions] == ["1", "2", "3"]
    if source == "mirror":
        assert brought.missing == []
        assert release(lost.world, lost.alice, "4").json()["role_version"] == 4
        assert [item.label for item in index_of(lost).versions] == ["1", "2", "3", "4"]
        again = lost.world.administration.adopt(str(lost.mirror))
        assert (again.complete, again.files) == (True, 0)


def test_what_would_be_brought_is_said_first(lost):
    tree = {path: path.read_bytes() for path in lost.world.tree.rglob("*") if path.is_file()}
    planned = lost.world.administration.adopt(str(lost.mirror), dry_run=True)
    assert {path: path.read_bytes() for path in lost.world.tree.rglob("*") if path.is_file()} == tree
    assert lost.world.administration.adopt(str(lost.mirror)) == planned


def test_what_is_missing_is_said_and_nothing_taken_over_until_another_source_has_it(lost):
    before = lost.world.administration.status()
    role = lost.mirror / "metadata/3.alice.json"
    kept = role.read_bytes()
    role.unlink()
    brought = lost.world.administration.adopt(str(lost.mirror))
    assert (brought.complete, brought.missing) == (False, ["metadata/3.alice.json"])
    assert lost.world.administration.status().roles[0].version == before.roles[0].version == 1
    role.write_bytes(kept)
    assert lost.world.administration.adopt(str(lost.mirror)).complete
    assert refreshed(lost.world, lost.state) > lost.seen


@pytest.mark.parametrize("lie", ["snapshot", "role", "index", "manifest", "block", "timestamp"])
def test_a_source_that_lies_gives_nothing(lost, lie):
    tree = lost.mirror
    newest = max((tree / "metadata").glob("*.snapshot.json"), key=lambda path: int(path.name.partition(".")[0]))
    if lie == "timestamp":
        (tree / "metadata/timestamp.json").write_bytes(b"{}")
    elif lie == "snapshot":
        snapshot = Metadata[Snapshot].from_bytes(newest.read_bytes())
        snapshot.signed.meta["alice.json"].version = 77
        newest.write_bytes(snapshot.to_bytes())
    elif lie == "role":
        (tree / "metadata/3.alice.json").write_bytes((tree / "metadata/2.alice.json").read_bytes())
    else:
        held = {str(path.relative_to(lost.world.tree)) for path in lost.world.tree.rglob("*")}
        pattern = {"index": "targets/alice/*", "manifest": "manifests/*", "block": "blocks/**/*.zst"}[lie]
        for path in tree.glob(pattern):
            if path.is_file() and str(path.relative_to(tree)) not in held:
                path.write_bytes(b"{}")
    if lie in ("snapshot", "timestamp"):
        with pytest.raises(OscircError):
            lost.world.administration.adopt(str(tree))
    else:
        assert lost.world.administration.adopt(str(tree)).missing
    for path in lost.world.tree.rglob("*"):
        assert not path.is_file() or path.read_bytes() != b"{}"


def test_a_source_is_a_url_a_copy_or_a_reader(lost, tmp_path):
    assert isinstance(elsewhere(str(lost.mirror)), TreeElsewhere)
    assert isinstance(elsewhere(str(lost.remote.directory)), ReaderElsewhere)
    mirror = elsewhere("http://127.0.0.1:9/repo")
    assert isinstance(mirror, MirrorElsewhere)
    mirror.close()
    with pytest.raises(NotFoundError):
        elsewhere(str(tmp_path))
    with pytest.raises(UsageError):
        elsewhere("http://user:secret@mirror.example/")
