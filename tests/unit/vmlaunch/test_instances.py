import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from oscirc_blockstore.errors import BusyError, DocumentRefusedError, NameRefusedError, NotFoundError, UsageError
from oscirc_vmlaunch.instances import Instances, State
from oscirc_vmlaunch.machine import PortForward
from oscirc_vmlaunch.processes import identify
from oscirc_vmlaunch.records import RunRecord


def run_of(process):
    return RunRecord(process, "tcg", "as asked for", "/mnt/disk.raw", "2026-01-01T00:00:00+00:00")


def test_an_instance_is_read_back_as_it_was_made(instances, make_record):
    record = make_record(port_forwards=(PortForward(2222, 22), PortForward(5353, 53, "udp")), ephemeral=True)
    instances.create(record)
    assert instances.load("one").record == record
    assert instances.names() == ["one"]


def test_instances_stand_in_the_data_folder_and_are_private(instances, make_record):
    instance = instances.create(make_record())
    assert instance.directory == Path(os.environ["XDG_DATA_HOME"]) / "oscirc/instances/one"
    assert instance.directory.stat().st_mode & 0o077 == 0
    assert (instance.directory / "instance.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "A", "-a", ".hidden", "a" * 64, "a\n", "a b", "ä"])
def test_names_that_climb_or_surprise_are_refused(instances, make_record, name):
    with pytest.raises(NameRefusedError):
        make_record(name=name)
    for call in (instances.load, instances.remove):
        with pytest.raises(NameRefusedError):
            call(name)


def test_a_taken_name_is_refused_and_nothing_is_left_of_the_try(instances, make_record):
    instances.create(make_record())
    with pytest.raises(UsageError, match="already"):
        instances.create(make_record())
    assert [path.name for path in instances.root.iterdir()] == ["one"]


def test_a_name_that_a_link_has_is_taken(instances, make_record, tmp_path):
    (tmp_path / "on another disk").mkdir()
    instances.root.mkdir(parents=True, exist_ok=True)
    (instances.root / "one").symlink_to(tmp_path / "on another disk")
    with pytest.raises(UsageError, match="already"):
        instances.create(make_record())


def test_what_does_not_exist_is_not_found(instances):
    for call in (instances.load, instances.remove):
        with pytest.raises(NotFoundError):
            call("none")
    assert instances.load_all() == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"name": 1}', b" " * 100_000])
def test_a_damaged_record_is_refused_by_name_hides_no_other_and_can_be_removed(instances, make_record, content, caplog):
    instances.create(make_record())
    damaged = instances.create(make_record(name="two"))
    (damaged.directory / "instance.json").write_bytes(content)
    with pytest.raises(DocumentRefusedError, match=r"two/instance\.json"):
        instances.load("two")
    assert [instance.name for instance in instances.load_all()] == ["one"]
    assert "two" in caplog.text
    instances.remove("two")
    assert instances.names() == ["one"]


def test_fields_of_a_newer_version_are_refused(instances, make_record):
    path = instances.create(make_record()).directory / "instance.json"
    path.write_text(path.read_text().replace('"cpus"', '"colour": "red", "cpus"'))
    with pytest.raises(DocumentRefusedError, match="colour"):
        instances.load("one")


def test_the_lock_keeps_others_out_and_names_its_holder(instances, make_record):
    instance = instances.create(make_record())
    with instance.lock():
        with pytest.raises(BusyError, match=f"process {os.getpid()}"), instance.lock():
            pass
        with pytest.raises(BusyError):
            instances.remove("one")
    with instance.lock():
        pass


def test_the_lock_lives_on_in_the_process_that_inherited_it(instances, make_record, spawn, end):
    instance = instances.create(make_record())
    with instance.lock() as lock:
        process = spawn("sleep", "60", inherited=[lock])
    with pytest.raises(BusyError), instance.lock():
        pass
    end(process)
    with instance.lock():
        pass


def test_an_instance_removed_meanwhile_cannot_be_locked(instances, make_record):
    instance = instances.create(make_record())
    instances.remove("one")
    with pytest.raises(NotFoundError), instance.lock():
        pass


def test_states_follow_the_process(instances, make_record, spawn, end):
    instance = instances.create(make_record())
    assert instance.state() is State.CREATED
    process = spawn("sleep", "60")
    instance.write_run(run_of(process))
    assert instance.state() is State.RUNNING
    end(process)
    assert instance.state() is State.STOPPED
    assert instance.last_run() == run_of(process)


def test_another_process_with_the_same_id_is_not_ours(instances, make_record):
    instance = instances.create(make_record())
    ourselves = identify(os.getpid())
    instance.write_run(run_of(dataclasses.replace(ourselves, start_ticks=ourselves.start_ticks - 1)))
    assert instance.state() is State.STOPPED
    instance.write_run(run_of(dataclasses.replace(ourselves, boot_id="another boot")))
    assert instance.state() is State.STOPPED


def test_ephemeral_instances_that_ended_are_swept_when_listing(instances, make_record, spawn, end):
    process = spawn("true")
    end(process)
    for name, ephemeral in (("keep", False), ("sweep", True)):
        instances.create(make_record(name=name, ephemeral=ephemeral)).write_run(run_of(process))
    instances.create(make_record(name="new", ephemeral=True))
    assert [instance.name for instance in instances.load_all()] == ["keep", "new"]


def test_nothing_is_left_of_a_removed_instance_or_of_an_interrupted_removal(instances, make_record):
    instance = instances.create(make_record())
    instance.overlay.write_bytes(b"x")
    interrupted = instances.root / ".removed-earlier" / "two"
    interrupted.mkdir(parents=True)
    instances.remove("one")
    assert list(instances.root.iterdir()) == []


def test_a_moved_mount_is_noted(instances, make_record):
    instance = instances.create(make_record())
    assert instance.moved_to(Path("/elsewhere")).record.mount_point == "/elsewhere"
    assert instances.load("one").record.mount_point == "/elsewhere"


def test_another_root_is_another_set(tmp_path, make_record):
    Instances(tmp_path / "a").create(make_record())
    assert Instances(tmp_path / "b").names() == []


def test_names_for_new_instances_are_new_and_allowed(instances, make_record):
    assert instances.unused_name("debian") == "debian"
    for expected in ("debian", "debian-2", "debian-3"):
        assert instances.unused_name("debian") == expected
        instances.create(make_record(name=expected))
    instances.create(make_record(name="a" * 63))
    assert instances.unused_name("a" * 63) == "a" * 57 + "-2"
    with pytest.raises(NameRefusedError):
        instances.unused_name("../up")


def test_one_that_another_process_is_removing_is_not_found(instances, make_record, monkeypatch):
    """The lock is held by who removes it, and is gone when its holder is asked for."""
    instance = instances.create(make_record())
    read_text = Path.read_text

    def after_the_removal(path, **options):
        if path.name == "lock":
            path.parent.rename(instances.root / ".removed-x")
        return read_text(path, **options)

    with instance.lock():
        monkeypatch.setattr(Path, "read_text", after_the_removal)
        with pytest.raises(NotFoundError, match="removed just now"), instance.lock():
            pass


def test_a_name_that_was_taken_and_is_free_again_is_said_to_be_taken(instances, make_record, monkeypatch):
    instances.create(make_record())
    rename = Path.rename

    def and_then_it_goes(path, target):
        try:
            return rename(path, target)
        except OSError:
            shutil.rmtree(target)
            raise

    monkeypatch.setattr(Path, "rename", and_then_it_goes)
    with pytest.raises(UsageError, match="already"):
        instances.create(make_record())


def test_a_removal_beside_another_one_removes_it_all_the_same(instances, make_record, monkeypatch):
    instances.create(make_record())
    mkdtemp, made = tempfile.mkdtemp, []

    def swept_once(**options):
        made.append(mkdtemp(**options))
        if len(made) == 1:
            Path(made[0]).rmdir()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_once)
    instances.remove("one")
    assert list(instances.root.iterdir()) == []
    assert len(made) == 2
