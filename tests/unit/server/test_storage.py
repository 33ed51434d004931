"""Both storages keep the one promise: whole files, never overwritten by `put_if_absent`."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from oscirc_blockstore.errors import LocalError, StoreFullError, UnreachableError, UsageError
from oscirc_server import object_storage
from oscirc_server import storage as storage_module
from oscirc_server.object_storage import ObjectStorage
from oscirc_server.storage import DirectoryStorage, StoredFile


@pytest.fixture(params=["directory", "object store"])
def storage(request, tmp_path):
    if request.param == "directory":
        return DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    return ObjectStorage.open("memory:///")


def test_the_first_file_wins(storage):
    assert storage.put_if_absent("blocks/sha256/ab/x.zst", b"first") is True
    assert storage.put_if_absent("blocks/sha256/ab/x.zst", b"second!") is False
    assert storage.get("blocks/sha256/ab/x.zst", 100) == b"first"


def test_a_replaced_file_holds_the_new_bytes(storage):
    storage.replace("metadata/timestamp.json", b"old")
    storage.replace("metadata/timestamp.json", b"new one")
    assert storage.get("metadata/timestamp.json", 100) == b"new one"
    assert storage.size("metadata/timestamp.json") == 7


def test_a_read_is_bounded(storage):
    storage.replace("accel/a", b"0123456789")
    assert storage.get("accel/a", 4) == b"01234"  # one more than allowed shows that it is too long
    assert storage.get_range("accel/a", 2, 5) == b"234"
    assert storage.get_range("accel/a", 5, 5) == b""


def test_what_is_absent_is_none(storage):
    assert storage.get("accel/a", 4) is None
    assert storage.get_range("accel/a", 0, 4) is None
    assert storage.size("accel/a") is None
    assert list(storage.files("metadata")) == []


def test_files_are_listed_with_their_sizes(storage):
    for path in ("metadata/1.root.json", "targets/alice/x.json", "targets/y.json"):
        storage.replace(path, path.encode())
    assert set(storage.files("targets")) == {
        StoredFile("targets/alice/x.json", len("targets/alice/x.json")),
        StoredFile("targets/y.json", len("targets/y.json")),
    }


def test_both_can_be_checked_and_synced(storage):
    storage.check()
    storage.sync()


def test_threads_that_put_one_file_agree_on_the_winner(tmp_path):
    storage = DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    barrier = threading.Barrier(8)
    wins = []

    def put(number):
        barrier.wait()
        if storage.put_if_absent("accel/a", str(number).encode()):
            wins.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.get("accel/a", 10)] == [str(number).encode() for number in wins]
    assert not any((tmp_path / "tmp").iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    storage = DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")

    def write(_descriptor, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage_module.os, "write", write)
    with pytest.raises(StoreFullError):
        storage.put_if_absent("accel/a", b"x")
    monkeypatch.undo()
    assert not any((tmp_path / "tmp").iterdir())
    assert storage.size("accel/a") is None


def test_old_temporary_files_are_swept(tmp_path):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old", 7200), ("new", 0)):
        path = tmp_path / "tmp" / name
        path.write_bytes(b"x")
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]


def test_a_temporary_file_that_goes_meanwhile_is_nobodys_fault(tmp_path, monkeypatch):
    """Every command on a data directory opens it, and beside it a server writes."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for number in range(3):
        (temporary / f"1-1-{number}").write_bytes(b"")
    os.utime(temporary / "1-1-2", (0, 0))
    scandir = os.scandir

    @contextlib.contextmanager
    def while_a_server_writes(place):
        with scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
            (temporary / "1-1-1").unlink()
            yield iter(entries)

    monkeypatch.setattr(os, "scandir", while_a_server_writes)
    DirectoryStorage(tmp_path / "tree", temporary).check()
    assert {path.name for path in temporary.iterdir()} == {"1-1-0"}  # the sweep went on


def test_a_place_that_cannot_be_used_is_a_local_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError):
        DirectoryStorage(tmp_path / "file", tmp_path / "tmp")
    storage = DirectoryStorage(tmp_path / "tree", tmp_path / "tmp")
    (tmp_path / "tmp").rmdir()
    with pytest.raises(LocalError):
        storage.check()


def test_without_syncfs_everything_is_synced(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(storage_module.ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(storage_module.os, "sync", lambda: called.append(True))
    DirectoryStorage(tmp_path / "tree", tmp_path / "tmp").sync()
    assert called == [True]


@pytest.mark.parametrize("url", ["nothing", "s4://bucket", ""])
def test_a_store_url_that_is_not_understood_is_a_usage_error(url):
    with pytest.raises(UsageError):
        ObjectStorage.open(url)


def test_objects_carry_what_a_web_server_would_say(monkeypatch):
    seen = {}
    monkeypatch.setattr(object_storage.obstore, "put", lambda _s, path, _b, **options: seen.update({path: options}))
    storage = ObjectStorage.open("memory:///")
    storage.replace("metadata/timestamp.json", b"x")
    assert seen["metadata/timestamp.json"]["attributes"] == {
        "Content-Type": "application/json",
        "Cache-Control": "no-cache",
    }


def test_a_store_that_does_not_understand_ranges_is_asked_for_the_whole(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise object_storage.BaseError("Received non-partial response when range requested")

    storage = ObjectStorage.open("memory:///")
    storage.replace("accel/a", b"0123456789")
    monkeypatch.setattr(object_storage.obstore, "get_range", refuse)
    assert storage.get_range("accel/a", 2, 5) == b"234"
    assert storage.get("accel/a", 4) == b"01234"


def test_a_store_that_fails_is_unreachable(monkeypatch):
    def fail(*_args, **_kwargs):
        raise object_storage.BaseError("no route")

    storage = ObjectStorage.open("memory:///")
    monkeypatch.setattr(object_storage.obstore, "head", fail)
    with pytest.raises(UnreachableError):
        storage.size("accel/a")


def test_a_file_that_a_killed_server_with_the_same_numbers_left_is_in_nobodys_way(tmp_path):
    """In a container process and thread have the same numbers after every start."""
    killed, started = (DirectoryStorage(tmp_path / "tree", tmp_path / "tmp") for _ in range(2))
    left, _ = killed._write("blocks/a", b"half of it")
    assert Path(left).exists()
    assert started.put_if_absent("blocks/b", b"whole") is True
