import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from oscirc_blockstore import keys
from oscirc_blockstore.errors import LocalError, NameRefusedError, NotFoundError, UsageError
from oscirc_publisher import signing
from oscirc_publisher.signing import KeyRing, PublisherKey


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path / "keys")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_encrypted_and_private(ring):
    made = ring.create("work", "secret")
    assert mode(ring.directory) == 0o700
    assert mode(ring.directory / "work.pem") == 0o600
    pem = (ring.directory / "work.pem").read_bytes()
    assert b"ENCRYPTED" in pem
    with pytest.raises(TypeError):
        load_pem_private_key(pem, None)
    loaded = ring.load("work", "secret")
    assert loaded.fingerprint == made.fingerprint == ring.show("work").fingerprint
    assert keys.fingerprint(keys.load_public(ring.export("work"), "it")) == made.fingerprint
    assert ring.names() == ["work"]


def test_keys_stand_in_the_users_own_directory_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    KeyRing().create("work", "secret")
    assert (tmp_path / "oscirc" / "keys" / "work.pem").exists()


def test_a_key_is_never_overwritten(ring):
    ring.create("work", "secret")
    before = (ring.directory / "work.pem").read_bytes()
    with pytest.raises(UsageError, match="already"):
        ring.create("work", "other")
    assert (ring.directory / "work.pem").read_bytes() == before


def test_an_empty_passphrase_and_bad_names_are_refused(ring):
    with pytest.raises(UsageError):
        ring.create("work", "")
    for name in ("../work", "a/b", "", ".hidden", "A"):
        with pytest.raises(NameRefusedError):
            ring.create(name, "secret")
        with pytest.raises(NameRefusedError):
            ring.load(name, "secret")
    assert not ring.directory.exists()


def test_a_wrong_passphrase_and_an_unknown_key(ring):
    ring.create("work", "secret")
    with pytest.raises(UsageError, match="wrong passphrase"):
        ring.load("work", "guess")
    with pytest.raises(UsageError, match="encrypted"):
        ring.load("work", None)
    with pytest.raises(NotFoundError) as caught:
        ring.load("play", "secret")
    assert "work" in caught.value.hint


def test_the_memory_only_grows_and_is_by_repository_and_publisher(ring):
    ring.create("work", "secret")
    key = ring.load("work", "secret")
    assert key.remembered("http://a", "alice") == 0
    key.remember("http://a", "alice", 5)
    key.remember("http://a", "alice", 3)
    key.remember("http://b", "alice", 2)
    key.remember("http://a", "bob", 9)
    again = ring.load("work", "secret")
    assert [again.remembered(*of) for of in (("http://a", "alice"), ("http://b", "alice"), ("http://a", "bob"))] == [
        5,
        2,
        9,
    ]
    assert mode(ring.directory / "work.json") == 0o600


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"format":"x","signed":{"a":"5"}}', b'{"signed": {"a": -1}}', b"\xff"])
def test_a_damaged_memory_is_not_taken_for_an_empty_one(ring, raw):
    key = ring.create("work", "secret")
    (ring.directory / "work.json").write_bytes(raw)
    with pytest.raises(LocalError, match="damaged"):
        key.remembered("http://a", "alice")
    with pytest.raises(LocalError, match="damaged"):
        key.remember("http://a", "alice", 1)


def test_a_write_that_fails_leaves_the_old_memory(ring, monkeypatch):
    key = ring.create("work", "secret")
    key.remember("http://a", "alice", 5)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signing.os, "fsync", full)
    with pytest.raises(LocalError, match="No space"):
        key.remember("http://a", "alice", 6)
    monkeypatch.undo()
    assert key.remembered("http://a", "alice") == 5


@pytest.mark.parametrize("place", ["file", "file/keys"])
def test_a_directory_that_cannot_be_made_is_a_local_error(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(LocalError):
        KeyRing(tmp_path / place).create("work", "secret")


REMEMBER = """
import sys
from pathlib import Path
from oscirc_publisher.signing import KeyRing
key = KeyRing(Path(sys.argv[1])).load("work", "secret")
for version in range(10):
    key.remember(sys.argv[2], "alice", version)
"""


def test_two_processes_remember_side_by_side(ring):
    key = ring.create("work", "secret")
    arguments = [sys.executable, "-c", REMEMBER, str(ring.directory)]
    children = [subprocess.Popen([*arguments, f"http://{number}"]) for number in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert [key.remembered(f"http://{number}", "alice") for number in range(4)] == [9] * 4


def test_a_key_knows_in_which_repositories_it_signed_as_a_publisher(tmp_path):
    key = PublisherKey("work", keys.generate(), tmp_path / "work.json")
    assert key.repositories("alice") == []
    for repository, publisher in (("https://b.example/r", "alice"), ("https://a.example/r", "alice"), ("x", "bob")):
        key.remember(repository, publisher, 3)
    assert key.repositories("alice") == ["https://a.example/r", "https://b.example/r"]
