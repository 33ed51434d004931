"""Making a repository: where keys go, what is printed once, and that it happens once."""

import stat

import pytest
from tuf.api.metadata import Metadata

from oscirc_blockstore import keys, repository_facts
from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import DocumentRefusedError, LocalError, UsageError
from oscirc_server.administration import Administration
from oscirc_server.errors import AlreadyInitialisedError, NotInitialisedError
from oscirc_server.initialising import initialise

from .server_world import PASSPHRASE, MovableClock, make_world

DAY_S = 86_400


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_offline_keys_never_touch_the_data_directory(tmp_path):
    world = make_world(tmp_path)
    assert sorted(path.name for path in world.keys.iterdir()) == ["root.pem", "targets.pem"]
    assert sorted(path.name for path in (world.data / "keys").iterdir()) == ["snapshot.pem", "timestamp.pem"]
    for path in (*world.keys.iterdir(), *(world.data / "keys").iterdir()):
        assert mode(path) == 0o600
    assert mode(world.data / "keys") == 0o700
    for name in ("root", "targets"):
        pem = (world.keys / f"{name}.pem").read_bytes()
        assert b"ENCRYPTED" in pem
        with pytest.raises(UsageError):
            keys.load_private(pem, "wrong", name)


def test_the_first_metadata_is_what_was_promised(tmp_path):
    world = make_world(tmp_path)
    now_s = world.clock()
    root_raw = (world.tree / "metadata/1.root.json").read_bytes()
    root = Metadata.from_bytes(root_raw).signed
    assert root.consistent_snapshot is True
    assert {name: (role.threshold, len(role.keyids)) for name, role in root.roles.items()} == dict.fromkeys(
        ("root", "targets", "snapshot", "timestamp"), (1, 1)
    )
    lifetimes = {"1.root": 5 * 365, "1.targets": 365, "1.snapshot": 7, "timestamp": 7}
    for name, days in lifetimes.items():
        signed = Metadata.from_bytes((world.tree / f"metadata/{name}.json").read_bytes()).signed
        assert signed.expires.timestamp() == now_s + days * DAY_S
    assert world.made.remote_url == f"http://repository.test/r#sha256={digest_of(root_raw).hex()}"
    assert world.made.root_digest == digest_of(root_raw).hex()
    assert (world.tree / f"roots/{digest_of(root_raw).hex()}.json").read_bytes() == root_raw
    (document,) = (world.tree / "targets").iterdir()
    facts = repository_facts.parse(document.read_bytes())
    assert (facts.name, facts.api_url) == ("Test repository", "http://repository.test/r/api/v1")
    assert not list((world.data / "tmp").iterdir())


def test_a_repository_is_made_once(tmp_path):
    world = make_world(tmp_path)
    before = {path: path.read_bytes() for path in world.tree.rglob("*.json")}
    with pytest.raises(AlreadyInitialisedError):
        initialise(world.data, world.keys, PASSPHRASE, None, None)
    assert {path: path.read_bytes() for path in world.tree.rglob("*.json")} == before


def test_an_interrupted_initialisation_is_finished_by_the_next(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise LocalError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr("oscirc_server.initialising.with_repository_facts", fail)
        with pytest.raises(LocalError):
            make_world(tmp_path)
    with pytest.raises(NotInitialisedError):
        Administration(tmp_path / "data").status()
    keys_before = {path.name: path.read_bytes() for path in (tmp_path / "offline").iterdir()}
    with pytest.raises(UsageError):
        initialise(tmp_path / "data", tmp_path / "offline", "another passphrase", None, None)
    world = make_world(tmp_path)
    assert {path.name: path.read_bytes() for path in world.keys.iterdir()} == keys_before
    assert world.administration.status().alarms == ()


def test_without_a_public_url_the_default_address_is_named(tmp_path):
    made = initialise(tmp_path / "data", None, PASSPHRASE, None, None, clock=MovableClock())
    assert made.remote_url == f"http://127.0.0.1:8420#sha256={made.root_digest}"
    assert made.keys_dir == tmp_path / "data/keys"
    (document,) = (tmp_path / "data/tree/targets").iterdir()
    assert repository_facts.parse(document.read_bytes()).api_url == ""


@pytest.mark.parametrize("url", ["file://{}/blocks", "memory:///"])
def test_the_tree_may_stand_elsewhere(tmp_path, url):
    made = initialise(
        tmp_path / "data", None, PASSPHRASE, None, None, blocks_url=url.format(tmp_path), clock=MovableClock()
    )
    assert not (tmp_path / "data/tree").exists()
    assert (tmp_path / f"blocks/roots/{made.root_digest}.json").exists() == url.startswith("file")


def test_an_empty_passphrase_or_a_bad_url_makes_nothing(tmp_path):
    with pytest.raises(UsageError):
        initialise(tmp_path / "data", None, "", None, None)
    with pytest.raises(DocumentRefusedError):
        initialise(tmp_path / "data", None, PASSPHRASE, "ftp://host", None)
    assert not (tmp_path / "data").exists()


def test_a_place_that_cannot_be_written_is_a_local_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError):
        initialise(tmp_path / "file" / "data", None, PASSPHRASE, None, None)
    with pytest.raises(LocalError):
        initialise(tmp_path / "data", tmp_path / "file" / "keys", PASSPHRASE, None, None)


def test_a_directory_without_a_repository_is_not_opened(tmp_path):
    with pytest.raises(NotInitialisedError):
        Administration(tmp_path / "nothing").status()
    assert not (tmp_path / "nothing").exists()
