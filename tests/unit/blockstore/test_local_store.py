"""The local store heals itself, leaves nothing half-written, and says when the disk is full."""

import errno
import os
import time

import pytest

from oscirc_blockstore.digests import digest_of
from oscirc_blockstore.errors import LocalError, StoreFullError
from oscirc_blockstore.local_store import LocalStore

RAW = os.urandom(65536)
DIGEST = digest_of(RAW)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "blocks")


def test_what_is_saved_is_loaded(store):
    assert store.load(DIGEST, len(RAW)) is None
    store.save(DIGEST, RAW)
    assert store.has(DIGEST)
    assert store.load(DIGEST, len(RAW)) == RAW
    assert list(store.digests()) == [DIGEST]
    store.remove(DIGEST)
    store.remove(DIGEST)
    assert list(store.digests()) == []


@pytest.mark.parametrize("damage", [b"", RAW[:-1], RAW + b"x", b"\1" + RAW[1:]])
def test_a_damaged_file_is_dropped_and_counted(store, damage):
    store.save(DIGEST, RAW)
    store.path(DIGEST).write_bytes(damage)
    assert store.load(DIGEST, len(RAW)) is None
    assert store.damaged == 1
    assert not store.has(DIGEST)


def test_a_link_in_place_of_a_block_is_not_followed(store, tmp_path):
    store.save(DIGEST, RAW)
    (tmp_path / "elsewhere").write_bytes(RAW)
    store.path(DIGEST).unlink()
    store.path(DIGEST).symlink_to(tmp_path / "elsewhere")
    assert store.load(DIGEST, len(RAW)) is None


def test_a_full_disk_is_said_and_leaves_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreFullError, match="no space left"):
        store.save(DIGEST, RAW)
    assert not store.has(DIGEST)
    assert list((store.root / "tmp").iterdir()) == []


def test_only_old_temporary_files_are_swept(store):
    old, young = store.root / "tmp" / "1-1-1", store.root / "tmp" / "1-1-2"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    LocalStore(store.root)
    assert [file.name for file in (store.root / "tmp").iterdir()] == ["1-1-2"]


def test_a_store_that_cannot_be_made_is_a_local_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalError, match="cannot make the store"):
        LocalStore(tmp_path / "file" / "blocks")


def test_a_removed_directory_is_made_again(store):
    store.save(DIGEST, RAW)
    store.remove(DIGEST)
    store.path(DIGEST).parent.rmdir()
    store.save(DIGEST, RAW)
    assert store.has(DIGEST)


def test_a_check_finds_what_is_damaged_removes_it_and_does_not_count_as_a_use(store):
    store.save(DIGEST, RAW)
    os.utime(store.path(DIGEST), (1, 1))
    assert store.check(DIGEST) == len(RAW)
    assert store.path(DIGEST).stat().st_mtime == 1
    store.path(DIGEST).write_bytes(b"\1" + RAW[1:])
    assert store.check(DIGEST) is None
    assert not store.has(DIGEST)
    assert store.check(DIGEST) == 0  # gone is not damaged
    assert store.damaged == 1


def test_a_check_never_reads_a_file_that_is_too_long_for_a_block(store, monkeypatch):
    store.save(DIGEST, RAW)
    os.truncate(store.path(DIGEST), 1 << 40)
    monkeypatch.setattr(os, "pread", lambda _descriptor, size, _at: pytest.fail("too much") if size > 1 << 20 else b"x")
    assert store.check(DIGEST) is None
    assert not store.has(DIGEST)


def test_a_use_is_noted_as_a_date_that_never_goes_back(store):
    store.save(DIGEST, RAW)
    os.utime(store.path(DIGEST), (1000, 1000))
    store.note_use(DIGEST, 5000.0)
    store.note_use(DIGEST, 3000.0)
    store.note_use(digest_of(b"absent"), 3000.0)
    assert store.path(DIGEST).stat().st_mtime == 5000
